"""Effects of the pipeline: records and bytes on disk, locks, child processes, running what the plan says."""
