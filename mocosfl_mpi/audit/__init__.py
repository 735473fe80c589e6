"""Audits: what attacks on a checkpoint came to, beside its utility and cost, on one page for people."""
