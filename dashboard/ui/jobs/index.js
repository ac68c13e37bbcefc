// The job monitor, at #/jobs: the queues with what waits and what was done, and the
// jobs of one state. It looks again every few seconds while it is open.
import { ask, done, failed, pageShell, request, store, t, when } from "../pocketbase.js";
import { openJob, refocus, rowOf } from "./job.js";
import { detailOf, queueName, queues as pausable, states, titleOf } from "./words.js";

// How often the page looks again, in milliseconds.
const pause = 3000;

// keepFocus lets what the keyboard is on keep it when its row is made anew: right after
// it was, so that no key falls in between.
function keepFocus(change) {
  const on = document.activeElement, row = on?.closest("[data-job], [data-queue]");
  const again = row && (row.dataset.job ? rowOf(row.dataset.job) : `[data-queue="${row.dataset.queue}"] button`);
  change();
  if (again) queueMicrotask(() => refocus(again));
}

export function page() {
  const data = store({ queues: [], items: [], next: "", state: "", queue: "", kind: "", loading: true, error: "" });
  let open = true, asked = 0;

  // put leaves what is the same alone, so that a text can be marked and a row clicked.
  const put = (values) => {
    for (const [name, value] of Object.entries(values)) {
      if (JSON.stringify(value) !== JSON.stringify(data[name])) data[name] = value;
    }
  };
  const look = async (more = false) => {
    const ask = ++asked;
    const query = new URLSearchParams({ state: data.state, queue: data.queue, kind: data.kind.trim(), before: more ? data.next : "" });
    try {
      const [queues, jobs] = await Promise.all([
        request("/api/jobs/queues").then((r) => r.json()),
        request(`/api/jobs?${query}`).then((r) => r.json()),
      ]);
      if (ask !== asked) return; // something else was asked for meanwhile
      const items = more ? [...data.items, ...jobs.items] : jobs.items;
      keepFocus(() => put({ queues, items, next: jobs.next }));
      data.error = "";
    } catch (error) {
      if (ask === asked) data.error = error.message;
    }
    data.loading = false;
  };
  const follow = async () => {
    while (open) {
      // A page that was loaded further, or is not looked at, stays as it is.
      if (!document.hidden && data.items.length <= 50) await look();
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  };
  const choose = (change) => {
    Object.assign(data, change);
    data.loading = true;
    look();
  };
  const turn = async (queue) => {
    try {
      data.queues = await request(`/api/jobs/queues/${queue.queue}/${queue.paused ? "resume" : "pause"}`, "POST").then((r) => r.json());
      setTimeout(() => refocus(`[data-queue="${queue.queue}"] button`), 100); // after the question, which is gone
      done(queue.paused ? `The queue ${queue.queue} goes on.` : `The queue ${queue.queue} is paused: what runs is finished, nothing else begins.`);
    } catch (error) {
      failed(error.message);
    }
  };
  const pauseOrResume = (queue) => {
    if (queue.paused) return turn(queue);
    ask(`Pause the queue ${queue.queue}? ${queue.queue === "critical" ? "Codes and sign-in mails wait until you resume it." : "What is in it waits until you resume it."}`, () => turn(queue));
  };

  const number = (name, n) => t.td({ className: "txt-right", "html-data-name": name }, n ? n.toLocaleString() : "–");
  const counted = { available: "Waiting", running: "Running", scheduled: "For later", retryable: "To be tried again", discarded: "Given up" };
  const columns = ["Queue", ...Object.values(counted), "Ended in the last minute", "Ended in the last hour", "Oldest waits since", ""];
  const queues = () => t.table({ className: "responsive-table", "html-data-jobs": "queues" },
    t.thead(null, t.tr(null, ...columns.map((title, i) => t.th({ scope: "col", className: i > 0 && i < 8 ? "txt-right" : "" }, title)))),
    t.tbody(null, ...data.queues.map((q) => t.tr({ "html-data-queue": q.queue },
      t.td(null, t.strong(null, queueName(q.queue)), q.paused ? t.span({ className: "label warning m-l-5" }, "paused") : null),
      ...Object.entries(counted).map(([state, name]) => number(name, q.states[state])), number(columns[6], q.lastMinute), number(columns[7], q.lastHour),
      t.td({ "html-data-name": columns[8] }, q.oldestDue ? when(q.oldestDue) : "–"),
      t.td({ className: "txt-right" }, !pausable.includes(q.queue) ? "" : t.button({ type: "button", className: "btn sm outline", ariaLabel: `${q.paused ? "Resume" : "Pause"} the queue ${q.queue}`, onclick: () => pauseOrResume(q) },
        t.span({ className: "txt" }, q.paused ? "Resume" : "Pause")))))));

  const filter = () => t.div({ className: "inline-flex gap-sm m-b-base m-t-base", style: "flex-wrap: wrap" },
    t.div({ className: "field" }, t.select({ ariaLabel: "State", name: "state", onchange: (e) => choose({ state: e.target.value }) },
      t.option({ value: "" }, "All jobs"),
      ...Object.entries(states).map(([value, { text }]) => t.option({ value }, text)))),
    t.div({ className: "field" }, t.select({ ariaLabel: "Queue", name: "queue", onchange: (e) => choose({ queue: e.target.value }) },
      t.option({ value: "" }, "All queues"),
      ...pausable.map((value) => t.option({ value }, value)))),
    t.div({ className: "field" }, t.input({ type: "search", ariaLabel: "Kind", name: "kind", placeholder: "Kind, such as account.mail", style: "min-width: 240px", onchange: (e) => choose({ kind: e.target.value }) })));

  const rows = () => t.table({ className: "responsive-table", "html-data-jobs": "list" },
    t.thead(null, t.tr(null, ...["Job", "State", "Queue", "Attempt", "Added", "Last error"].map((title) => t.th({ scope: "col" }, title)))),
    t.tbody(null,
      ...data.items.map((job) => t.tr(
        {
          "html-data-job": job.id, "html-tabindex": "0", className: "handle",
          onclick: () => openJob(job.id, look),
          onkeydown: (e) => (e.key === "Enter" || e.key === " ") && (e.preventDefault(), openJob(job.id, look)),
        },
        t.td(null, t.div(null, titleOf(job.kind)), t.small({ className: "txt-hint" }, detailOf(job))),
        t.td({ className: "txt-nowrap" }, t.span({ className: `label ${states[job.state]?.className ?? ""}`, style: "white-space:nowrap" }, states[job.state]?.text ?? job.state)),
        t.td({ "html-data-name": "Queue" }, queueName(job.queue)),
        t.td({ style: "white-space:nowrap", "html-data-name": "Attempt" }, `${job.attempt} of ${job.maxAttempts}`),
        t.td({ "html-data-name": "Added" }, when(job.created)),
        t.td({ style: "overflow-wrap:anywhere", "html-data-name": job.errors.length ? "Last error" : undefined }, job.errors.length ? job.errors[job.errors.length - 1].error : "")))));

  return pageShell({
    title: "Jobs",
    onunmount: () => (open = false),
    onmount: follow,
    content: [
      () => data.error && t.div({ className: "alert danger m-b-base", role: "alert" }, data.error),
      queues,
      filter(),
      () => data.loading && !data.items.length
        ? t.p({ className: "txt-hint" }, "Loading…")
        : data.items.length
        ? rows()
        : data.error ? null : t.p({ className: "txt-hint", "html-data-jobs": "none" }, "There are no such jobs. Finished ones are kept for some days only."),
      () => data.next && t.button({ type: "button", className: "btn transparent m-t-base", onclick: () => look(true) }, t.span({ className: "txt" }, "Show more")),
    ],
  });
}
