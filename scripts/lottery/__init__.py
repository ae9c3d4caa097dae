"""The torture lottery: one integer seed draws a kind of run, the moments and the faults that disturb it.

Read in the order ``features`` (kinds of runs), ``points`` (moments), ``faults``, ``draws`` (seed -> draw), ``attempts``
(one start of the command, forked), ``trigger`` (when it strikes), ``lines`` (what it may print), ``outcome``
(what is compared), ``play`` (one draw), ``table`` (many draws), ``chunks`` (in several calls).
"""
