// What jobs and their states are called on the page.
export const states = {
  available: { text: "waiting", className: "" },
  running: { text: "running", className: "info" },
  scheduled: { text: "for later", className: "" },
  retryable: { text: "to be tried again", className: "warning" },
  completed: { text: "done", className: "success" },
  cancelled: { text: "cancelled", className: "" },
  discarded: { text: "given up", className: "danger" },
};

const titles = {
  "notification.plan": "Find out who gets a notification",
  "notification.batch": "Send a part of a notification",
  "notification.cancel": "Cancel a notification",
  "notification.trigger": "Send what a trigger says",
  "notification.dates": "Look for reminders that are due",
  "notification.fallback": "Send an SMS in place of an unopened push",
  "notification.test": "Send a test",
  "notification.handover": "Hand messages to a provider",
  "notification.result": "Store what a worker reports",
  "account.mail": "Send a code or an account mail",
  "account.purge": "Delete what has expired",
  "account.erase": "Erase a person",
  "account.compact": "Overwrite what was erased",
  "provider.check": "Check a provider",
  "provider.recheck": "Look whether a provider works again",
  "provider.resumed": "Go on after a provider was repaired",
  "sms.poll": "Ask what became of SMS",
  "schedule.run": "Run a schedule",
};

// titleOf says what a job does; what is not ours is called by its kind.
export const titleOf = (kind) => titles[kind] ?? kind;

// detailOf stands under it, and does not say the same again.
export const detailOf = (job) => titles[job.kind] ? `${job.kind} · ${job.id}` : job.id;

// The queues that can be paused, from the most to the least urgent. Postgres has others
// beside them.
export const queues = ["critical", "default", "bulk", "maintenance"];

// queueName calls the queues between a server and its workers, which are named after
// what a provider is set to, by what they are for.
export function queueName(name) {
  const [queue, provider] = name.split("_at_");
  if (provider) return `${queue}, for workers (${provider.replace(/_[0-9a-f]+$/, "").replaceAll("_", " ")})`;
  return name === "results" ? "what workers report" : name;
}
