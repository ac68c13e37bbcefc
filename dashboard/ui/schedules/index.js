// Above the fields of a schedule: when it runs, in plain words and as the next five
// runs, while it is being typed; what its payload may have; "Run now"; and what became
// of the last runs.
import { button } from "../dialog.js";
import { done, onRecordForm, request, store, t } from "../pocketbase.js";

// How long to wait for the next key, and for the end of a run, in milliseconds.
const typing = 250, pause = 1000;

// How many of the last runs are shown.
const shown = 10;

const words = {
  queued: "waiting", running: "running", ok: "ok", failed: "failed", skipped: "skipped", missed: "missed",
  due: "due", catch_up: "made up for", manual: "run now",
};
const labels = { ok: "success", failed: "danger", running: "info", queued: "info", skipped: "warning", missed: "warning" };

export function start() {
  onRecordForm("gw_schedules", ["cron", "timezone", "action"], form);
}

function form({ panel }) {
  const data = store({ id: "", cron: "", timezone: "", action: "", description: "", next: [], keys: [], example: "", zone: "", errors: [], runs: null, busy: false, refused: "" });
  let timer, asked = 0, opened = false; // opened stays while what it says changes

  const explain = async () => {
    const number = ++asked;
    const { cron, timezone, action } = data;
    if (!cron && !action) {
      Object.assign(data, { description: "", next: [], errors: [], keys: [] });
      return;
    }
    try {
      const answer = await (await request("/api/schedules/explain", "POST", { cron, timezone, action })).json();
      if (number === asked) Object.assign(data, { description: answer.description, next: answer.nextRuns, zone: answer.timezone, keys: answer.keys || [], example: answer.example, errors: [] });
    } catch (error) {
      if (number !== asked) return; // somebody typed on
      keysOf(action, number);
      const sentences = Object.values(error.fields || {}).map((field) => field.message);
      Object.assign(data, { description: "", next: [], errors: sentences.length ? sentences : [error.message] });
    }
  };

  // A line that cannot be read is no reason to say nothing about the payload.
  const keysOf = async (action, number) => {
    if (!action) return;
    const answer = await request("/api/schedules/explain", "POST", { action }).then((r) => r.json()).catch(() => ({}));
    if (number === asked) Object.assign(data, { keys: answer.keys || [], example: answer.example });
  };

  const look = async () => {
    const { id } = data;
    if (!id) return;
    const query = new URLSearchParams({ filter: `schedule = "${id}"`, sort: "-dueAt", perPage: shown, skipTotal: "true" });
    try {
      const answer = await (await request(`/api/collections/gw_schedule_runs/records?${query}`)).json();
      if (id === data.id) data.runs = answer.items;
    } catch (error) {
      data.refused = error.message;
    }
  };
  // Looks again as long as there is something to wait for.
  const follow = async () => {
    do {
      await look();
      await new Promise((resolve) => setTimeout(resolve, pause));
    } while (panel.isConnected && data.runs?.some((r) => r.status === "queued" || r.status === "running"));
    data.busy = false;
  };
  const runNow = async () => {
    if (data.busy) return;
    data.busy = true;
    data.refused = "";
    try {
      await request(`/api/collections/gw_schedules/records/${encodeURIComponent(data.id)}`, "PATCH", { run: "now" });
      done("It runs now. What becomes of it is shown under Last runs.");
      await follow();
    } catch (error) {
      data.refused = error.message;
      data.busy = false;
    }
  };

  const when = () => {
    if (data.errors.length) return t.div({ className: "alert warning m-t-sm", role: "status" }, ...data.errors.map((sentence) => t.p(null, sentence)));
    if (!data.description) return t.p({ className: "txt-hint", role: "status" }, "Write a cron line below, such as 0 9 * * sat: it is explained here.");
    return t.div({ role: "status" },
      t.p(null, "Runs ", t.strong(null, data.description), "."),
      t.p({ className: "txt-hint m-b-0" }, "The next runs on that clock:"),
      t.ol({ className: "groundwork-next m-t-0" }, ...data.next.map((run) => t.li(null, run.local))));
  };
  const payload = () => data.keys.length ? t.details({ className: "m-b-sm", open: opened, ontoggle: (e) => (opened = e.target.open) },
    t.summary(null, "What the payload may have, with an example"),
    t.pre({ style: "white-space: pre-wrap" }, t.code(null, JSON.stringify(JSON.parse(data.example), null, 2))),
    t.ul(null, ...data.keys.map((key) => t.li(null, t.code(null, key.name), `: ${key.help}`)))) : null;
  const runs = () => {
    if (!data.id) return null;
    if (!data.runs?.length) return t.p({ className: "txt-hint" }, data.runs ? "It has not run yet." : "");
    return t.table({ className: "responsive-table" },
      t.thead(null, t.tr(null, ...["When", "Why", "What became of it", "Output"].map((head) => t.th({ scope: "col" }, head)))),
      t.tbody(null, ...data.runs.map((run) => t.tr(null,
        t.td({ className: "txt-nowrap", "html-data-name": "When" }, clock(run.dueAt, data.zone)),
        t.td({ "html-data-name": "Why" }, words[run.cause] || run.cause),
        t.td({ "html-data-name": "What became of it" }, t.span({ className: `label ${labels[run.status] || ""}` }, words[run.status] || run.status), run.attempt > 1 ? ` at attempt ${run.attempt}` : ""),
        t.td({ style: "white-space: pre-wrap; overflow-wrap: anywhere", "html-data-name": "Output" }, [run.error, run.output].filter(Boolean).join("\n"))))));
  };

  const element = t.section({ className: "groundwork-schedule m-b-base", ariaLabel: "When it runs" },
    when,
    payload,
    () => data.id && t.div({ className: "flex m-b-sm" },
      t.h6({ className: "m-0" }, "Last runs"),
      t.div({ className: "flex-fill" }),
      button({ text: "Run now", className: () => `sm outline ${data.busy ? "loading" : ""}`, disabled: () => data.busy, onclick: runNow, title: "Runs it once as it is saved" })),
    () => data.refused && t.div({ className: "alert danger m-b-sm", role: "alert" }, data.refused),
    runs,
  );
  return {
    element,
    changed(values) {
      const other = values.id !== data.id;
      Object.assign(data, values);
      if (other) {
        data.runs = null;
        follow();
      }
      clearTimeout(timer);
      timer = setTimeout(explain, data.description || data.errors.length ? typing : 0);
    },
  };
}

// clock shows a time of the server in the schedule's zone.
function clock(time, zone) {
  const date = new Date(time.replace(" ", "T"));
  try {
    return new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short", timeZone: zone || "UTC" }).format(date);
  } catch {
    return time; // a zone that this browser does not know
  }
}
