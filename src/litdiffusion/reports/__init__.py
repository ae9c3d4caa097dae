"""Evaluates checkpoints: tables, csv files and pictures."""
