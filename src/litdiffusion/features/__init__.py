"""Features of images, for metrics that compare distributions: a classifier of the data's own classes, or Inception."""

from litdiffusion.features.accuracy import ClassificationAccuracy, Score, classification_accuracy
from litdiffusion.features.classifier import ClassifierFeatures
from litdiffusion.features.extractor import Extractor, FeatureMaps, Features, to_bytes
from litdiffusion.features.inception import InceptionFeatures
from litdiffusion.features.reference import reference_features
from litdiffusion.features.training import ClassifierTraining, fit_classifier

__all__ = [
    "ClassificationAccuracy",
    "ClassifierFeatures",
    "ClassifierTraining",
    "Extractor",
    "FeatureMaps",
    "Features",
    "InceptionFeatures",
    "Score",
    "classification_accuracy",
    "fit_classifier",
    "reference_features",
    "to_bytes",
]
