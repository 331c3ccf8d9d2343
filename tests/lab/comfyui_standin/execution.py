"""Validating, queueing and running prompts as ComfyUI v0.3.64 does, for nodes that do nothing."""

import asyncio
import copy
import hashlib
import heapq
import inspect
import json
import logging
import sys
import threading
import time
import traceback
import uuid

import faults
import nodes
from comfy import model_management
from comfy.cli_args import args


def is_link(value):
    """Whether an input is another node's output: [node id, slot]."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def hidden(node, prompt, extra_data, unique_id):
    """Values of a node's hidden inputs."""
    known = {
        **{"PROMPT": prompt, "DYNPROMPT": prompt, "UNIQUE_ID": unique_id},
        "EXTRA_PNGINFO": extra_data.get("extra_pnginfo"),
    }
    asked = node.INPUT_TYPES().get("hidden", {})
    return {name: known[kind] for name, kind in asked.items() if kind in known}


def named(function, inputs):
    """Those of the inputs that a function takes."""
    told = inspect.getfullargspec(function)
    return inputs if told.varkw else {k: v for k, v in inputs.items() if k in told.args}


def type_name(kind):
    """A class with its module, as error messages name it."""
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def problem(kind, message, details, **extra):
    """An error as /prompt tells it."""
    return {"type": kind, "message": message, "details": details, "extra_info": extra}


# --- validation -------------------------------------------------------------------------------


def accepts(received, wanted):
    """Whether an output's type fits an input's."""
    different = received != wanted  # node packs overload this, to take any type
    if not different or not isinstance(received, str) or not isinstance(wanted, str):
        return not different
    return bool({t.strip() for t in received.split(",")} & {t.strip() for t in wanted.split(",")})


CONVERTED = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


def check_value(name, value, kind, options, inputs, own_check):
    """What is wrong with a constant, None where nothing is; it is converted in place."""
    if isinstance(value, dict) and "__value__" in value:
        value = inputs[name] = value["__value__"]
    config = {"input_name": name, "input_config": (kind, options), "received_value": value}
    if isinstance(kind, str) and kind in CONVERTED:
        try:
            value = inputs[name] = CONVERTED[kind](value)
        except Exception as error:
            text = f"Failed to convert an input value to a {kind} value"
            told = f"{name}, {value}, {error}"
            return problem("invalid_input_type", text, told, **config, exception_message=str(error))
    if own_check:
        return None
    config["received_value"] = value
    if "min" in options and value < options["min"]:
        text = f"Value {value} smaller than min of {options['min']}"
        return problem("value_smaller_than_min", text, name, **config)
    if "max" in options and value > options["max"]:
        text = f"Value {value} bigger than max of {options['max']}"
        return problem("value_bigger_than_max", text, name, **config)
    if isinstance(kind, list) and value not in kind:
        long = len(kind) > 20
        listed = f"(list of length {len(kind)})" if long else str(kind)
        config["input_config"] = None if long else config["input_config"]
        told = f"{name}: '{value}' not in {listed}"
        return problem("value_not_in_list", "Value not in list", told, **config)
    return None


def validate_inputs(prompt, item, validated):
    """Whether a node and all before it are good, and what is wrong with the node itself."""
    if item in validated:
        return validated[item]
    inputs = prompt[item]["inputs"]
    node = nodes.NODE_CLASS_MAPPINGS[prompt[item]["class_type"]]
    types = node.INPUT_TYPES()
    check = getattr(node, "VALIDATE_INPUTS", None)
    asked = inspect.getfullargspec(check) if check else None
    errors, valid = [], True
    for category in ("required", "optional"):
        for name, row in types.get(category, {}).items():
            kind, options = row[0], row[1] if len(row) > 1 else {}
            if name not in inputs:
                if category == "required":
                    text = "Required input is missing"
                    told = problem("required_input_missing", text, name, input_name=name)
                    errors.append(told)
                continue
            value = inputs[name]
            if not isinstance(value, list):
                own = check is not None and (name in asked.args or asked.varkw is not None)
                told = check_value(name, value, kind, options, inputs, own)
                errors += [told] if told else []
                continue
            config = {"input_name": name, "input_config": (kind, options)}
            if len(value) != 2:
                text = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
                told = problem("bad_linked_input", text, name, **config, received_value=value)
                errors.append(told)
                continue
            source = prompt[value[0]]["class_type"]
            received = nodes.NODE_CLASS_MAPPINGS[source].RETURN_TYPES[value[1]]
            if not accepts(received, kind):
                text = "Return type mismatch between linked nodes"
                detail = f"{name}, received_type({received}) mismatch input_type({kind})"
                config |= {"received_type": received, "linked_node": value}
                errors.append(problem("return_type_mismatch", text, detail, **config))
                continue
            try:
                valid &= validate_inputs(prompt, value[0], validated)[0]
            except Exception as error:
                valid = False
                config |= {"exception_message": str(error), "linked_node": value}
                config |= {"exception_type": type_name(type(error)), "traceback": trace()}
                text = "Exception when validating inner node"
                told = problem("exception_during_inner_validation", text, str(error), **config)
                validated[value[0]] = (False, [told])
    if check is not None:
        constants = {k: v for k, v in inputs.items() if not is_link(v)}
        constants = named(check, constants)
        answer = check(**constants) if constants else True
        if answer is not True:
            for name in constants:
                detail = name if answer is False else f"{name} - {answer}"
                text = "Custom validation failed for node"
                errors.append(problem("custom_validation_failed", text, detail, input_name=name))
    validated[item] = (valid and not errors, errors)
    return validated[item]


def trace():
    """Lines of the traceback of what is being handled."""
    return traceback.format_tb(sys.exc_info()[2])


def validate_prompt(prompt, partial=None):
    """(good, error, outputs to execute, errors by node)."""
    outputs = []
    for item, row in prompt.items():
        where = f"Node ID '#{item}'"
        if "class_type" not in row:
            text = "Cannot execute because a node is missing the class_type property."
            return False, problem("invalid_prompt", text, where), [], {}
        node = nodes.NODE_CLASS_MAPPINGS.get(row["class_type"])
        if node is None:
            text = f"Cannot execute because node {row['class_type']} does not exist."
            return False, problem("invalid_prompt", text, where), [], {}
        if getattr(node, "OUTPUT_NODE", False) is True and (partial is None or item in partial):
            outputs.append(item)
    if not outputs:
        return False, problem("prompt_no_outputs", "Prompt has no outputs", ""), [], {}
    good, failed, by_node, validated = [], [], {}, {}
    for output in outputs:
        try:
            valid, reasons = validate_inputs(prompt, output, validated)
        except Exception as error:
            extra = {"exception_type": type_name(type(error)), "traceback": trace()}
            text = "Exception when validating node"
            reasons = [problem("exception_during_validation", text, str(error), **extra)]
            valid, validated[output] = False, (False, reasons)
        if valid:
            good.append(output)
            continue
        failed += reasons
        for item, (fine, own) in validated.items():
            if not fine and own:
                kind = prompt[item]["class_type"]
                row = {"errors": own, "dependent_outputs": [], "class_type": kind}
                by_node.setdefault(item, row)["dependent_outputs"].append(output)
    if not good:
        told = "\n".join(f"{reason['message']}: {reason['details']}" for reason in failed)
        text = "Prompt outputs failed validation"
        return False, problem("prompt_outputs_failed_validation", text, told), [], by_node
    return True, None, good, by_node


# --- execution --------------------------------------------------------------------------------


class PromptExecutor:
    """Runs one prompt after another and keeps what did not change."""

    def __init__(self, server):
        self.server = server
        self.reset()

    def reset(self):
        """Forget all results."""
        self.results = {}  # signature -> outputs of the node
        self.ui = {}  # signature -> what the node told to show
        self.success = True
        self.history_result = {}
        self.status_messages = []

    def message(self, event, data, broadcast=False):
        """Tell the client, and the history."""
        data = {**data, "timestamp": int(time.time() * 1000)}
        self.status_messages.append((event, data))
        if self.server.client_id is not None or broadcast:
            self.send(event, data)

    def send(self, event, data):
        """Tell the client."""
        if faults.asked("garbage-messages"):
            self.server.send_garbage(data.get("prompt_id"))
        self.server.send_sync(event, data, self.server.client_id)

    def signature(self, prompt, item):
        """What a node's result depends on, as a digest."""
        if item in self.signatures:
            return self.signatures[item]
        self.signatures[item] = uuid.uuid4().hex  # what is not there, or its own source
        if item not in prompt:
            return self.signatures[item]
        row = prompt[item]
        node = nodes.NODE_CLASS_MAPPINGS[row["class_type"]]
        changed = False
        if hasattr(node, "IS_CHANGED"):
            constants = {k: v for k, v in row["inputs"].items() if not is_link(v)}
            try:
                changed = node.IS_CHANGED(**named(node.IS_CHANGED, constants))
            except Exception as error:
                logging.warning("WARNING: %s", error)
                changed = float("nan")
        told = [row["class_type"], changed]
        if changed != changed or args.cache_none:
            told.append(uuid.uuid4().hex)  # NaN: never the same again
        if "UNIQUE_ID" in node.INPUT_TYPES().get("hidden", {}).values():
            told.append(item)
        for name, value in sorted(row["inputs"].items()):
            link = is_link(value)
            told.append((name, [self.signature(prompt, value[0]), value[1]] if link else value))
        digest = hashlib.sha256(json.dumps(told, default=repr).encode()).hexdigest()
        self.signatures[item] = digest
        return digest

    def order(self, prompt, outputs):
        """Nodes to run, each after those it needs; what is cached needs nothing."""
        ordered = []

        def visit(item):
            if item in ordered:
                return
            if self.signatures[item] not in self.results:
                for value in prompt[item]["inputs"].values():
                    if is_link(value) and self.signatures[value[0]] not in self.results:
                        visit(value[0])
            ordered.append(item)

        for output in outputs:
            visit(output)
        return ordered

    def execute(self, prompt, prompt_id, extra_data=None, execute_outputs=()):
        """Run a prompt; its end is in ``success`` and ``history_result``."""
        model_management.interrupt_current_processing(False)
        extra_data = extra_data or {}
        self.server.client_id = extra_data.get("client_id")
        self.prompt_id, self.success, self.status_messages = prompt_id, True, []
        self.progress = {}
        self.message("execution_start", {"prompt_id": prompt_id})
        self.signatures = {}
        for item in prompt:
            self.signature(prompt, item)
        if not args.cache_lru:
            used = set(self.signatures.values())
            self.results = {k: v for k, v in self.results.items() if k in used}
            self.ui = {k: v for k, v in self.ui.items() if k in used}
        cached = [item for item in prompt if self.signatures[item] in self.results]
        self.message("execution_cached", {"nodes": cached, "prompt_id": prompt_id})
        executed = []
        for item in self.order(prompt, execute_outputs):
            if not self.run_node(prompt, item, extra_data, executed):
                self.success = False
                break
        else:
            self.message("execution_success", {"prompt_id": prompt_id})
        shown = {i: self.ui[s] for i, s in self.signatures.items() if s in self.ui}
        meta = {
            item: dict.fromkeys(("node_id", "display_node", "real_node_id"), item)
            | {"parent_node": None}
            for item in shown
        }
        self.history_result = {"outputs": shown, "meta": meta}
        self.server.last_node_id = None

    def run_node(self, prompt, item, extra_data, executed):
        """Run one node; False where it failed or was interrupted."""
        row = prompt[item]
        signature = self.signatures[item]
        about = {"node": item, "display_node": item, "prompt_id": self.prompt_id}
        if signature in self.results:
            self.told("executed", about | {"output": self.ui.get(signature)})
            self.step(item, state="finished")
            return True
        node = nodes.NODE_CLASS_MAPPINGS[row["class_type"]]
        inputs = {}
        try:
            self.step(item, 0.0, 1.0)
            self.server.last_node_id = item
            self.told("executing", about)
            known = node.INPUT_TYPES()
            names = {**known.get("required", {}), **known.get("optional", {})}
            for name, value in row["inputs"].items():
                if is_link(value):
                    inputs[name] = self.results[self.signatures[value[0]]][value[1]]
                elif name in names:
                    inputs[name] = value
            inputs |= hidden(node, prompt, extra_data, item)
            model_management.throw_exception_if_processing_interrupted()
            result = nodes.run(node(), inputs)
            if inspect.iscoroutine(result):
                result = asyncio.run(result)
        except model_management.InterruptProcessingException:
            logging.info("Processing interrupted")
            self.failed("execution_interrupted", item, row, executed, broadcast=True)
            return False
        except Exception as error:
            logging.error("!!! Exception during processing !!! %s", error)
            logging.error("%s", traceback.format_exc())
            tips = ""
            if isinstance(error, nodes.OutOfMemoryError):
                tips = "This error means you ran out of memory on your GPU."
                model_management.unload_all_models()
            plain = (int, float, bool, str, type(None))
            shown = {k: [v if isinstance(v, plain) else str(v)] for k, v in inputs.items()}
            self.failed(
                *("execution_error", item, row, executed),
                exception_message=f"{error}\n{tips}",
                exception_type=type_name(type(error)),
                traceback=trace(),
                current_inputs=shown,
                current_outputs=list(prompt),
            )
            return False
        ui = result.get("ui") if isinstance(result, dict) else None
        outputs = result.get("result", ()) if isinstance(result, dict) else result
        if ui:
            self.ui[signature] = ui
            self.told("executed", about | {"output": ui})
        self.results[signature] = tuple(outputs or ())
        self.step(item, state="finished")
        executed.append(item)
        return True

    def failed(self, event, item, row, executed, broadcast=False, **more):
        """Tell that a node ended the prompt."""
        about = {"prompt_id": self.prompt_id, "node_id": item, "node_type": row["class_type"]}
        self.message(event, about | {"executed": executed} | more, broadcast)

    def told(self, event, data):
        """Tell the client, if there is one."""
        if self.server.client_id is not None:
            self.send(event, data)

    def step(self, item, value=None, maximum=None, state="running"):
        """Tell how far the prompt's nodes are."""
        row = self.progress.setdefault(item, {"value": 0.0, "max": 1.0})
        if state == "finished":
            row["value"] = row["max"]
        else:
            row |= {"value": value, "max": maximum}
        row["state"] = state
        same = {"prompt_id": self.prompt_id, "parent_node_id": None}
        told = {
            node: {
                **now,
                **same,
                **dict.fromkeys(("node_id", "display_node_id", "real_node_id"), node),
            }
            for node, now in self.progress.items()
        }
        self.send("progress_state", {"prompt_id": self.prompt_id, "nodes": told})

    def hook(self, value, total, preview, node_id=None):
        """Progress of the running node, from comfy.utils.ProgressBar."""
        item = node_id or self.server.last_node_id
        model_management.throw_exception_if_processing_interrupted()
        self.step(item, value, total)
        told = {"value": value, "max": total, "prompt_id": self.prompt_id, "node": item}
        self.send("progress", told)
        if preview is not None:
            self.server.send_preview(preview, self.server.client_id)


class PromptQueue:
    """What waits, runs and was done. An item: (number, id, prompt, extra data, outputs)."""

    def __init__(self, server):
        self.server = server
        self.mutex = threading.RLock()
        self.not_empty = threading.Condition(self.mutex)
        self.queue = []
        self.running = {}
        self.history = {}
        self.flags = {}

    def put(self, item):
        """Queue a prompt."""
        with self.mutex:
            heapq.heappush(self.queue, item)
            self.server.queue_updated()
            self.not_empty.notify()

    def get(self, timeout):
        """The next prompt, which runs from now on; None after a while without one."""
        with self.not_empty:
            if not self.queue and not self.flags:
                self.not_empty.wait(timeout)
            if not self.queue:
                return None
            item = heapq.heappop(self.queue)
            self.running[item[1]] = copy.deepcopy(item)
            self.server.queue_updated()
            return item

    def done(self, item, result, status):
        """Write a prompt into the history."""
        with self.mutex:
            told = self.running.pop(item[1])
            self.history[item[1]] = {"prompt": told, "outputs": {}, "status": status, **result}
            self.server.queue_updated()

    def current(self):
        """What runs and what waits."""
        with self.mutex:
            return list(self.running.values()), list(self.queue)

    def remaining(self):
        """How many run or wait."""
        with self.mutex:
            return len(self.queue) + len(self.running)

    def delete(self, wanted=None):
        """Take a waiting prompt out, or all of them."""
        with self.mutex:
            self.queue = [item for item in self.queue if wanted not in (None, item[1])]
            heapq.heapify(self.queue)
            self.server.queue_updated()

    def set_flag(self, name, value):
        """Have the worker do something when it is idle."""
        with self.mutex:
            self.flags[name] = value
            self.not_empty.notify()

    def take_flags(self):
        """What it was asked to do."""
        with self.mutex:
            flags, self.flags = self.flags, {}
            return flags

    def get_history(self, prompt_id=None, max_items=None, offset=-1):
        """Everything that was done, a part of it, or one prompt."""
        with self.mutex:
            if prompt_id is not None:
                return {k: v for k, v in self.history.items() if k == prompt_id}
            items = list(self.history.items())
            if offset < 0 and max_items is not None:
                offset = len(items) - max_items
            items = items[max(offset, 0) :]
            return dict(items if max_items is None else items[:max_items])


def worker(queue, executor, server):
    """Run what is queued, for ever."""
    while True:
        item = queue.get(1000.0)
        if item is not None:
            begun = time.perf_counter()
            executor.execute(item[2], item[1], item[3], item[4])
            status = {
                "status_str": "success" if executor.success else "error",
                "completed": executor.success,
                "messages": executor.status_messages,
            }
            queue.done(item, executor.history_result, status)
            if server.client_id is not None:
                ended = {"node": None, "prompt_id": item[1]}
                server.send_sync("executing", ended, server.client_id)
            logging.info("Prompt executed in %.2f seconds", time.perf_counter() - begun)
        flags = queue.take_flags()
        if flags.get("unload_models", flags.get("free_memory")):
            model_management.unload_all_models()
        if flags.get("free_memory"):
            executor.reset()
