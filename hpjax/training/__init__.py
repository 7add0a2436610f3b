"""Training of Flax models with Optax: the program that ``hpx.supervised`` builds."""
