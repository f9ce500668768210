"""`afterword methods`."""

from afterword.cli.console import say


def methods() -> None:
    """List the methods, each with its paper and the values that it was vetted with."""
    from afterword.methods import get_method, known_methods

    for name in known_methods():
        method = get_method(name)
        settings = {**method.settings(), "learning_rate": method.defaults.get("learning_rate")}
        shown = " ".join(f"{name}={value}" for name, value in settings.items() if value is not None)
        say(f"{name}: {method.summary}\n    {shown}\n    {method.paper or 'in no paper'}")
