"""`gateway bench URL`: a load generator for scoring URLs, and the report of what it saw.

Why: a figure that the server's own maker gives should be one that anybody can take again, on his own model and
machine.
How: processes that do nothing but send prepared bytes and take times (engine, worker) are told what to do by one
that decides, sums and reports (fleet, session). Decisions are pure modules of their own: schedule, settle,
search, verdict.
Units: *_ns monotonic nanoseconds, *_s seconds, *_ms milliseconds, rates in requests a second.
Needs the extra `bench` (hdrhistogram); options.py alone needs nothing but the standard library.
"""
