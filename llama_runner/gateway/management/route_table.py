"""The table of the routes of the management API. Routes and OpenAPI document are made from it."""

from __future__ import annotations

from llama_runner.gateway.management import (
    adapters,
    models,
    programs_and_configuration,
    running_models,
    sessions,
    streams,
)
from llama_runner.gateway.management.json_schema_parts import ANY, COUNT, FLAG, OBJECT, TEXT, array, object_of, ref
from llama_runner.gateway.management.openapi_operation import Operation, Parameter

_NAME = Parameter("name", "Name of a model; a slash in it may be sent as %2F.", place="path")
_BUILD = Parameter("name", "Name of a build, or its beginning.", place="path")
_JOB = Parameter("id", "Id of a job.", place="path")
_FORCE = Parameter("force", "Also what is kept, locked, declared or in use for later starts.", FLAG, default=False)
_LINES = Parameter(
    "lines", "How many of the last lines.", {"type": "integer", "minimum": 0, "maximum": 10000}, default=200
)
_FOLLOW = Parameter("follow", "Go on with the lines to come, as events `line`.", FLAG, default=False)
_LONG = {"type": "string", "minLength": 1, "maxLength": 500}
_MEMORY = {"type": "integer", "minimum": 1}

_OF_MODELS = (
    Operation(
        *("GET", "/models", "listModels", "models", "List models: served ones, and those of the store."),
        *(models.list_models, ref("Models")),
        parameters=(
            Parameter("query", "Words that name or source have.", TEXT, default=""),
            Parameter("limit", "Models of one page.", {"type": "integer", "minimum": 1, "maximum": 5000}, default=1000),
            Parameter("offset", "Models to leave out.", COUNT, default=0),
        ),
    ),
    Operation(
        *("POST", "/models", "addModel", "models", "Fetch or make a model and serve it: a job."),
        *(models.add_model, ref("Job")),
        body=object_of({"name": _LONG}, {"update": FLAG}, closed=True),
        status=202,
        errors=(429, 502),
    ),
    Operation(
        *("GET", "/models/{name}/log", "modelLog", "models", "Last lines of the log of a model's process."),
        *(programs_and_configuration.model_log, ref("Log")),
        parameters=(_NAME, _LINES, _FOLLOW),
        streams="Event",
        errors=(404,),
    ),
    Operation(
        *("GET", "/models/{name}/plan", "planModel", "models", "The steps that a start would run, as a graph."),
        *(models.plan_model, ref("Plan")),
        parameters=(
            _NAME,
            Parameter("online", "Ask the Hub about names that are not known here.", FLAG, default=False),
        ),
        errors=(404, 409, 502),
    ),
    Operation(
        *("GET", "/models/{name}/why", "whyModel", "models", "How a model file was made, as events and a graph."),
        *(models.why_model, ref("History")),
        parameters=(_NAME, Parameter("file", "Name of the file, where a model has several.", _LONG)),
        errors=(404,),
    ),
    Operation(
        *("GET", "/models/{name}/removal", "lookAtRemoval", "models", "What removing a model deletes and frees."),
        *(models.look_at_removal, ref("Removal")),
        parameters=(_NAME, _FORCE),
        errors=(404, 409),
    ),
    Operation(
        *("POST", "/models/{name}/prepare", "prepareModel", "jobs", "Make all that serving a model needs: a job."),
        *(models.prepare_model, ref("Job")),
        parameters=(_NAME,),
        status=202,
        errors=(404, 429),
    ),
    Operation(
        *("POST", "/models/{name}/start", "startModel", "models", "Load a model."),
        *(models.start_model, ref("Started")),
        parameters=(_NAME,),
        body=object_of({}, {"wait": FLAG}, closed=True),
        errors=(404, 502, 503),
    ),
    Operation(
        *("POST", "/models/{name}/stop", "stopModel", "models", "Stop a model once its requests have ended."),
        *(models.stop_model, ref("Stopped")),
        parameters=(_NAME,),
        errors=(404,),
    ),
    Operation(
        *("PUT", "/models/{name}/pin", "pinModel", "models", "Keep a model loaded, until the gateway ends."),
        *(models.pin_model, ref("Pinned")),
        parameters=(_NAME,),
        body=object_of({"pinned": FLAG}, closed=True),
        errors=(404,),
    ),
    Operation(
        *("PUT", "/models/{name}/keep", "keepModel", "models", "Protect the files of a model from gc."),
        *(models.keep_model, ref("Kept")),
        parameters=(_NAME,),
        body=object_of({"kept": FLAG}, closed=True),
        errors=(404, 409),
    ),
    Operation(
        *("GET", "/models/{name}", "showModel", "models", "Everything that is known of one model."),
        *(models.show_model, ref("ModelDetails")),
        parameters=(_NAME, Parameter("check", "Ask the Hub what it has now.", FLAG, default=False)),
        errors=(404, 502),
    ),
    Operation(
        *("DELETE", "/models/{name}", "removeModel", "models", "Delete the files of a model; end a name of a client."),
        *(models.remove_model, ref("Removal")),
        parameters=(_NAME, _FORCE),
        errors=(404, 409),
    ),
    Operation(
        *("GET", "/adapters", "listAdapters", "models", "Adapters: declared ones, and those trained here."),
        *(adapters.adapters, ref("Adapters")),
    ),
)

_OF_HUB = (
    Operation(
        *("GET", "/search", "searchHub", "hub", "Search the Hub: sizes per quantization, what fits, licence."),
        *(models.search, ref("SearchResults")),
        parameters=(
            Parameter("query", "Words to search for.", _LONG, required=True),
            Parameter("limit", "Repositories at most.", {"type": "integer", "minimum": 1, "maximum": 50}, default=10),
        ),
        errors=(502,),
    ),
    Operation(
        *("GET", "/recommend", "recommend", "hub", "Which quantization and context suit this machine."),
        *(models.recommend, ref("Recommendation")),
        parameters=(
            Parameter("model", "A served model, or ORG/MODEL on the Hub.", _LONG, required=True),
            Parameter("context", "Tokens that must fit.", _MEMORY),
            Parameter("memory", "Bytes to plan with instead of what is available.", _MEMORY),
        ),
        errors=(502,),
    ),
)

_OF_JOBS = (
    Operation(
        *("GET", "/jobs", "listJobs", "jobs", "List jobs, the newest first."),
        *(programs_and_configuration.list_jobs, ref("Jobs")),
    ),
    Operation(
        *("GET", "/jobs/{id}", "showJob", "jobs", "One job with its progress."),
        *(programs_and_configuration.show_job, ref("Job")),
        parameters=(_JOB,),
        errors=(404,),
    ),
    Operation(
        *("GET", "/jobs/{id}/log", "jobLog", "jobs", "Last lines of the log of a job's step."),
        *(programs_and_configuration.job_log, ref("Log")),
        parameters=(_JOB, _LINES, _FOLLOW),
        streams="Event",
        errors=(404,),
    ),
    Operation(
        *("POST", "/jobs/{id}/cancel", "cancelJob", "jobs", "End a job; what arrived stays."),
        *(programs_and_configuration.cancel_job, ref("Job")),
        parameters=(_JOB,),
        errors=(404,),
    ),
    Operation(
        *("DELETE", "/jobs/{id}", "removeJob", "jobs", "Forget a job that has ended."),
        *(programs_and_configuration.remove_job, ref("Removed")),
        parameters=(_JOB,),
        errors=(404, 409),
    ),
)

_SESSION = Parameter("session", "Id of a session, or the beginning of its digest.", place="path")

_OF_SESSIONS = (
    Operation(
        *("GET", "/sessions", "listSessions", "sessions", "List the sessions on disk, the last used first."),
        *(sessions.list_sessions, ref("Sessions")),
    ),
    Operation(
        *("POST", "/sessions/prune", "pruneSessions", "sessions", "Delete old states; chats are read again then."),
        *(sessions.prune_sessions, ref("PrunedSessions")),
        body=object_of(
            {},
            {
                "max_size": {**COUNT, "description": "Bytes of states that stay, the last used ones."},
                "unused": {"type": "number", "minimum": 0, "description": "Seconds without use."},
                "histories": FLAG,
            },
            closed=True,
        ),
    ),
    Operation(
        *("POST", "/sessions/import", "importSession", "sessions", "Add a session that was exported."),
        *(sessions.import_session, ref("Session")),
        body=object_of({"exported": OBJECT}, {"as": _LONG}, closed=True),
    ),
    Operation(
        *("GET", "/sessions/{session}/export", "exportSession", "sessions", "The history of a session."),
        *(sessions.export_session, OBJECT),
        parameters=(_SESSION,),
        errors=(404,),
    ),
    Operation(
        *("GET", "/sessions/{session}", "showSession", "sessions", "A session with its turns."),
        *(sessions.show_session, ref("SessionDetails")),
        parameters=(_SESSION,),
        errors=(404,),
    ),
    Operation(
        *("DELETE", "/sessions/{session}", "removeSession", "sessions", "Delete the states and history of a session."),
        *(sessions.remove_session, ref("Session")),
        parameters=(_SESSION,),
        errors=(404,),
    ),
)

_OF_PROGRAMS = (
    Operation(
        *("GET", "/programs", "listPrograms", "programs", "List the builds of llama.cpp."),
        *(programs_and_configuration.list_programs, ref("Programs")),
    ),
    Operation(
        *("GET", "/programs/updates", "programUpdates", "programs", "Compare the pinned llama.cpp with newer ones."),
        *(programs_and_configuration.program_updates, ref("Updates")),
        parameters=(Parameter("offline", "Use no network.", FLAG, default=False),),
    ),
    Operation(
        *("POST", "/programs/install", "installPrograms", "programs", "Install a release of llama.cpp: a job."),
        *(programs_and_configuration.install_programs, ref("Job")),
        body=object_of({}, {"release": {**_LONG, "description": "A tag, or latest."}, "device": _LONG}, closed=True),
        status=202,
        errors=(429,),
    ),
    Operation(
        *("POST", "/programs/build", "buildPrograms", "programs", "Compile llama.cpp: a job."),
        *(programs_and_configuration.build_programs, ref("Job")),
        body=object_of({}, {"device": _LONG, "force": FLAG, "jobs": {**_MEMORY, "maximum": 1024}}, closed=True),
        status=202,
        errors=(429,),
    ),
    Operation(
        *("POST", "/programs/rollback", "rollBackPrograms", "programs", "Use the build again that was in use before."),
        *(programs_and_configuration.roll_back_programs, ref("InUse")),
        errors=(409,),
    ),
    Operation(
        *("POST", "/programs/{name}/activate", "activateProgram", "programs", "Choose the build of later starts."),
        *(programs_and_configuration.activate_program, ref("InUse")),
        parameters=(_BUILD,),
        errors=(404, 409),
    ),
    Operation(
        *("DELETE", "/programs/{name}", "removeProgram", "programs", "Remove a build."),
        *(programs_and_configuration.remove_program, ref("Removed")),
        parameters=(_BUILD, _FORCE),
        errors=(404, 409),
    ),
)

_CHANGE = object_of({"key": _LONG}, {"value": ANY, "unset": FLAG}, closed=True)

_OF_CONFIGURATION = (
    Operation(
        *("GET", "/config", "readConfiguration", "configuration", "The text of the configuration file, and mistakes."),
        *(programs_and_configuration.read_configuration, ref("Configuration")),
        errors=(404,),
    ),
    Operation(
        *(
            "PUT",
            "/config",
            "changeConfiguration",
            "configuration",
            "Change the file; without apply, show what changes.",
        ),
        *(programs_and_configuration.change_configuration, ref("ConfigChange")),
        body=object_of(
            {},
            {
                "changes": {**array(_CHANGE), "minItems": 1, "maxItems": 200},
                "text": {"type": "string", "maxLength": 1 << 20},
                "apply": FLAG,
                "revision": {
                    **TEXT,
                    "description": "That of the text that the change is for: 409 if it is another one.",
                },
                "reload": {**FLAG, "description": "Serve it at once; true by default."},
            },
            closed=True,
        ),
        errors=(404, 409),
    ),
    Operation(
        *("GET", "/config/schema", "configurationSchema", "configuration", "The JSON Schema of the file."),
        *(programs_and_configuration.configuration_schema, OBJECT),
    ),
    Operation(
        *("GET", "/config/value", "configurationValue", "configuration", "What the file sets a key to."),
        *(programs_and_configuration.configuration_value, ref("ConfigValue")),
        parameters=(Parameter("key", 'As in the file: models."qwen:8b".port.', _LONG, required=True),),
        errors=(404,),
    ),
    Operation(
        *(
            "GET",
            "/config/models/{name}",
            "effectiveConfiguration",
            "configuration",
            "A model's options and their origin.",
        ),
        *(programs_and_configuration.effective_configuration, ref("Effective")),
        parameters=(_NAME,),
        errors=(404,),
    ),
    Operation(
        *("POST", "/reload", "reload", "configuration", "Serve what the configuration says now."),
        *(programs_and_configuration.reload_configuration, ref("Reloaded")),
    ),
)

_OF_GATEWAY = (
    Operation(
        *("GET", "/status", "status", "gateway", "The gateway and the store."),
        *(programs_and_configuration.status, ref("Status")),
    ),
    Operation(
        *("GET", "/running", "running", "gateway", "Models that run or that requests wait for, with slots and speed."),
        *(running_models.running, ref("RunningModels")),
    ),
    Operation(
        *("GET", "/machine", "machine", "gateway", "Processors, memory, disk and devices now."),
        *(running_models.machine, ref("Machine")),
    ),
    Operation(
        *("GET", "/doctor", "doctor", "gateway", "What this machine has and lacks, with hints."),
        *(programs_and_configuration.doctor, ref("Diagnosis")),
    ),
    Operation(
        *("GET", "/events", "followEvents", "gateway", "Events of scheduler and jobs, as they happen."),
        *(streams.follow_events, {}),
        parameters=(
            Parameter("Last-Event-ID", "Id of the last event that was read.", place="header"),
            Parameter("last_event_id", "The same, for clients that set no headers."),
            Parameter("types", "Types of events, with commas between them; all by default.", TEXT, default=""),
        ),
        streams="Event",
    ),
)

OPERATIONS: tuple[Operation, ...] = (
    *(*_OF_MODELS, *_OF_HUB, *_OF_JOBS, *_OF_SESSIONS),
    *(*_OF_PROGRAMS, *_OF_CONFIGURATION, *_OF_GATEWAY),
)
"""All routes. Of two that a path fits, the first is taken."""
