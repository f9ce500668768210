"""`python -m almanac_build`: build the embedded models, or one stage of them."""

from almanac_build.stages import main

main()
