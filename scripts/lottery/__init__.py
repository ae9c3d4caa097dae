"""The torture lottery: one integer seed draws a kind of run, the moments and the faults that disturb it.

Read in the order ``features`` (kinds of runs), ``points`` (moments), ``faults``, ``draws`` (seed -> draw), ``attempts``
(one start of the command in forked processes), ``outcome`` (what is compared), ``play`` (one draw), ``chunks`` (many).
"""
