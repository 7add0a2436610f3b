"""Do 4 lanes of GPT-2's size, each on 4 of 16 chips, fit a v5e:4x4?

hpjax plan experiments/language_model/plan_124m.py --target v5e:4x4
"""

from lm import described

sweep = described(layers=12, width=768, trials=4, devices_per_lane=4)
