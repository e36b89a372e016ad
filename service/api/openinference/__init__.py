"""Owns the Open Inference Protocol V2: `/v2/...`, as Triton Inference Server and KServe speak it."""
