"""The management API under ``/api/v1``: models, programs, configuration, machine, jobs, events.

``route_table`` has the routes, from which the OpenAPI document is made too. Each handler is a thin call of
``Runner``, in a thread where only small files are read, else in a process (``gateway/runner_call_worker.py``).
"""
