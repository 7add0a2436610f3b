"""Does one lane of 1.3 billion parameters fit on the 16 chips of a v5e:4x4?

hpjax plan experiments/language_model/plan_1_3b.py --target v5e:4x4
"""

from lm import described

sweep = described(layers=24, width=2_048, trials=1, devices_per_lane=16)
