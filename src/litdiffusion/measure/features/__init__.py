"""Features of images, for metrics that compare distributions: a classifier of the data's own classes, or Inception."""

from litdiffusion.measure.features.accuracy import ClassificationAccuracy, Score, classification_accuracy
from litdiffusion.measure.features.classifier import ClassifierFeatures
from litdiffusion.measure.features.extractor import Extractor, FeatureMaps, Features, to_bytes
from litdiffusion.measure.features.inception import InceptionFeatures
from litdiffusion.measure.features.reference import reference_features
from litdiffusion.measure.features.training import ClassifierTraining, fit_classifier

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
