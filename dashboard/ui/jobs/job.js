// One job: what it was given, its attempts with their errors, and what can be done
// with it. Secrets are not in what the server shows.
import { button, dialog } from "../dialog.js";
import { closeModal, done, request, store, t, when } from "../pocketbase.js";
import { queueName, states, titleOf } from "./words.js";

// rowOf finds a job's row in the list.
export const rowOf = (id) => `tr[data-job="${id}"]`;

// refocus gives the keyboard back to what was made anew meanwhile, unless it is elsewhere.
export function refocus(selector) {
  if (document.activeElement === document.body) document.querySelector(selector)?.focus({ preventScroll: true });
}

export async function openJob(id, changed) {
  const data = store({ job: null, busy: "", error: "" });
  const call = async (path, method) => {
    try {
      data.job = await request(`/api/jobs/${id}${path}`, method).then((r) => r.json());
      data.error = "";
      return true;
    } catch (error) {
      data.error = error.message;
      return false;
    }
  };
  const act = async (what, sentence) => {
    if (data.busy) return;
    data.busy = what;
    if (await call(`/${what}`, "POST")) done(sentence);
    data.busy = "";
    changed();
  };
  call("", "GET");

  const line = (name, value) => value && t.tr(null, t.th({ scope: "row" }, name), t.td(null, value));
  const code = (title, value) => value != null && [t.h6({ className: "m-t-base m-b-5" }, title), t.pre({ className: "m-0" }, t.code(null, JSON.stringify(value, null, 2)))];
  const content = () => {
    const job = data.job;
    if (!job) return t.p({ className: "txt-hint" }, data.error ? "" : "Loading…");
    return t.div({ "html-data-job-detail": job.id },
      t.table({ className: "responsive-table" }, t.tbody(null, ...[
        line("State", t.span({ className: `label ${states[job.state]?.className ?? ""}` }, states[job.state]?.text ?? job.state)),
        line("Id", job.id), line("Kind", job.kind), line("Queue", `${queueName(job.queue)}, priority ${job.priority}`),
        line("Attempts", `${job.attempt} of ${job.maxAttempts}`), line("Host", job.host),
        line("Added", when(job.created)), line("Not before", job.runAt && new Date(job.runAt) - new Date(job.created) > 1000 ? when(job.runAt) : ""),
        line("Began", job.startedAt && when(job.startedAt)), line("Ended", job.finishedAt && when(job.finishedAt)),
      ].filter(Boolean))),
      ...[code("What it was given", job.args), code("Result", job.result)].filter(Boolean).flat(),
      job.errors.length ? t.h6({ className: "m-t-base m-b-5" }, "What went wrong") : null,
      ...job.errors.map((e) => t.div({ className: "alert danger m-b-5" }, t.strong(null, `Attempt ${e.attempt}, `, when(e.at)), t.div(null, e.error))));
  };
  const can = (...among) => data.job && among.includes(data.job.state);

  const element = dialog({
    title: () => titleOf(data.job?.kind ?? "") || "Job",
    size: "lg",
    scrolls: true,
    closed: () => setTimeout(() => refocus(rowOf(id)), 100), // after the dialog has looked for the row that was clicked
    content: [content, () => data.error && t.div({ className: "alert danger m-t-base", role: "alert" }, data.error)],
    buttons: [
      button({ text: "Close", className: "transparent m-r-auto", onclick: () => closeModal(element) }),
      button({ text: "Cancel this job", className: () => `outline danger ${data.busy === "cancel" ? "loading" : ""}`, hidden: () => !can("available", "scheduled", "retryable", "running"),
        onclick: () => act("cancel", "The job is cancelled.") }),
      button({ text: () => can("completed", "cancelled", "discarded") ? "Run it again" : "Try it now", className: () => data.busy === "retry" ? "loading" : "",
        hidden: () => !can("completed", "cancelled", "discarded", "retryable", "scheduled"), onclick: () => act("retry", "The job is tried again.") }),
    ],
  });
}
