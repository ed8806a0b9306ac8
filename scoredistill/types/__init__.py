"""What passes between the parts: conditions, batches, samples and diffused samples.

Dimension legend, used in every shape below:

    B  samples in a batch          n  particles of a generator    V  views (cameras) of a step, B = n V
    K  components of a mixture     D  a sample's own dimensions, `*D` when they are several
    C  channels   H, W  height and width of a picture, values in [-1, 1]
"""

from scoredistill.types.batch import Batch, Shard
from scoredistill.types.condition import Condition, Prompt, TextEmbeddings
from scoredistill.types.sample import Diffused, Sample, Segment, right_pad_dims

__all__ = ["Batch", "Condition", "Diffused", "Prompt", "Sample", "Segment", "Shard", "TextEmbeddings", "right_pad_dims"]
