"""Likelihoods: the variational bound of a chain, and the density of the probability flow."""

from litdiffusion.likelihood.bits import bits_per_dimension, byte_nats, dequantised
from litdiffusion.likelihood.bound import BoundTerms, bound_term, prior_divergence, variational_bound
from litdiffusion.likelihood.divergence import Divergence, Exact, Hutchinson
from litdiffusion.likelihood.flow import FlowLikelihood, flow_log_likelihood

__all__ = [
    "BoundTerms",
    "Divergence",
    "Exact",
    "FlowLikelihood",
    "Hutchinson",
    "bits_per_dimension",
    "bound_term",
    "byte_nats",
    "dequantised",
    "flow_log_likelihood",
    "prior_divergence",
    "variational_bound",
]
