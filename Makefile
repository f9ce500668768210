# Every target makes its own virtual environment in .venv from the pinned constraints.
PYTHON3 ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# Apart from the rest, and only for the tests that shard by it: accelerate imports it wherever it finds it.
DEEPSPEED := deepspeed einops hjson msgpack ninja py-cpuinfo

.PHONY: install hooks test test-deepspeed test-slow test-real demo check docs golden kills almanac clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON3) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,docs]'
	touch $(INSTALLED)

.venv/deepspeed: $(INSTALLED)
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps --upgrade --target $@ $(DEEPSPEED)
	touch $@

# An environment without bytecode would have every process that the suite starts compile all sources anew.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile --durations 25 -m "not real and not slow and not deepspeed"

# Sharding by DeepSpeed's ZeRO-3, launched by torchrun: a minute of its own, most of it DeepSpeed's start.
test-deepspeed: $(INSTALLED) .venv/deepspeed
	$(BIN)/python -m pytest -m deepspeed

# Benchmarks in truth: minutes each.
test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow

# On the real model, which is fetched once into the cache.
test-real: $(INSTALLED)
	AFTERWORD_FETCH_REAL=1 $(BIN)/python -m pytest -m real

demo: $(INSTALLED)
	$(BIN)/afterword demo

check: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

# The site of docs/ into build/docs, without a network; a broken link or anchor ends it.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Before each commit: what is quick of the checks. See .pre-commit-config.yaml.
hooks: $(INSTALLED)
	$(BIN)/pre-commit install

# Accept new recorded losses. Say in CHANGELOG what moved and why.
golden: $(INSTALLED)
	rm -f tests/golden/losses.json
	AFTERWORD_RECORD_GOLDEN=1 $(BIN)/python -m pytest tests/golden

kills: $(INSTALLED)
	$(BIN)/python benchmarks/kills.py --kills 20

# Build the embedded models again from their seed, stage by stage, over those that are shipped.
almanac: $(INSTALLED)
	$(BIN)/python -m almanac_build --output src/afterword/almanac/weights

clean:
	rm -rf .venv build runs .pytest_cache .ruff_cache
