"""Likelihoods: the variational bound of a chain, and the density of the probability flow."""

from litdiffusion.diffusion.likelihood.bits import are_bytes, bits_per_dimension, byte_nats, dequantised
from litdiffusion.diffusion.likelihood.bound import BoundTerms, bound_term, prior_divergence, variational_bound
from litdiffusion.diffusion.likelihood.divergence import Divergence, Exact, Hutchinson
from litdiffusion.diffusion.likelihood.flow import FlowLikelihood, flow_log_likelihood
from litdiffusion.diffusion.likelihood.measure import divergence_for, flow_nats, quick_nats

__all__ = [
    "BoundTerms",
    "Divergence",
    "Exact",
    "FlowLikelihood",
    "Hutchinson",
    "are_bytes",
    "bits_per_dimension",
    "bound_term",
    "byte_nats",
    "dequantised",
    "divergence_for",
    "flow_log_likelihood",
    "flow_nats",
    "prior_divergence",
    "quick_nats",
    "variational_bound",
]
