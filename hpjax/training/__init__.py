"""Training of Flax models with Optax as a program: what ``hpx.supervised`` builds."""
