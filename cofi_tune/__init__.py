"""CoFi Tune: every BERT worth having between accuracy and measured speed, ready to load.

Importing this package costs nothing and does one thing: once transformers' auto classes are (or get)
imported, they know the models saved here, so `AutoModelForSequenceClassification.from_pretrained`
loads them without a trust flag.
"""

from cofi_tune._auto import register_when_imported

__version__ = "0.1.0"

register_when_imported()
