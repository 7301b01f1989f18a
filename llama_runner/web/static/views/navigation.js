// The views in the order of the navigation, by their name in the address: `#/models`.

import * as models from "./models.js";
import * as discover from "./discover.js";
import * as running from "./running.js";
import * as machine from "./machine.js";
import * as programs from "./programs.js";
import * as configuration from "./configuration.js";
import * as adapters from "./adapters.js";
import * as why from "./why_a_step_runs.js";
import * as activity from "./activity.js";
import * as chat from "./chat.js";

export const VIEWS = { models, discover, running, machine, programs, configuration, adapters, why, activity, chat };
export const FIRST = "models";
