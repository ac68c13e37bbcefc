// "Erase this person…": POST /api/accounts/{collection}/{id}/erase, and the receipt
// in erasures until it is done or the dialog is closed.
import { button, dialog } from "../dialog.js";
import { closeModal, deleted, record, request, show, store, t } from "../pocketbase.js";
import { download } from "./export.js";

// How often the receipt is looked at, in milliseconds.
const pause = 1000;

const gone = [
  "the account, with its files, sign-ins and codes",
  "devices, inbox, subscriptions and preferences",
  "messages that went to this person alone, and this person's name and address in all others",
  "jobs and log entries that name this person",
  "records of your own collections that are set to be deleted with the account",
];
const kept = [
  "how many messages went out and what became of each, without saying to whom",
  "that an address wants no more messages, as a code that cannot be read: it goes on to hold, also for a new account",
  "your other records that point to the account: the pointer is emptied",
  "backups, until they expire",
  "a receipt in erasures that does not tell who it was",
];
const stages = {
  erasing: "The account is deleted. What else is kept about it is being erased…",
  compacting: "All is deleted. What the databases have freed is overwritten next.",
  done: "Done: all of it is deleted and overwritten.",
};

// What the counts of a receipt are called here; others are shown as they are.
const words = {
  authOrigins: "devices known from signing in", externalAuths: "sign-in accounts elsewhere", otps: "codes", mfas: "unfinished sign-ins",
  groundwork_phone_codes: "codes by phone", groundwork_sessions_required: "older sign-ins", deliveries: "deliveries without a name now", logs: "log entries",
};

// ready tells whether what was typed is the person's address or id.
const ready = (data) => {
  const typed = data.typed.trim();
  return typed !== "" && (typed === data.id || data.email !== "" && typed.toLowerCase() === data.email.toLowerCase());
};

export async function openErase({ panel, collection, id }) {
  const data = store({ id, email: "", typed: "", busy: false, exporting: false, error: "", receipt: "", status: "erasing", counts: {} });
  let open = true;
  record(collection.name, id).then((r) => (data.email = r.email || ""), () => {}); // the id does as well

  const follow = async () => {
    while (open && data.status !== "done") {
      const r = await record("erasures", data.receipt).catch(() => null); // asked again
      if (r) Object.assign(data, { status: r.status, counts: r.counts || {} });
      if (data.status !== "done") await new Promise((resolve) => setTimeout(resolve, pause));
    }
  };
  const erase = async () => {
    if (data.busy || data.receipt || !ready(data)) return;
    data.busy = true;
    data.error = "";
    try {
      const response = await request(`/api/accounts/${encodeURIComponent(collection.name)}/${encodeURIComponent(id)}/erase`, "POST");
      data.receipt = (await response.json()).erasure;
      deleted(panel, collection, id);
      setTimeout(() => element.querySelector("[data-close]")?.focus(), 0);
      follow();
    } catch (error) {
      data.error = error.message;
    }
    data.busy = false;
  };
  const exportFirst = async () => {
    data.exporting = true;
    data.error = "";
    await download({ collection, id }, "zip").catch((error) => (data.error = error.message));
    data.exporting = false;
  };

  const list = (title, lines) => [t.h6({ className: "m-b-5" }, title), t.ul({ className: "m-t-0" }, ...lines.map((line) => t.li(null, line)))];
  const question = () => t.form(
    {
      id: "groundwork-erase",
      onsubmit: (event) => {
        event.preventDefault();
        erase();
      },
    },
    t.p(null, "This is about ", t.strong(null, () => data.email || id), ` in ${collection.name}. There is no way back but a backup.`),
    ...list("Deleted for good", gone),
    ...list("What stays", kept),
    t.div({ className: "field m-t-base" },
      t.label({ htmlFor: "groundwork-erase-typed" }, t.span({ className: "txt" }, () => data.email ? "To go on, type the e-mail address or the id" : "To go on, type the id of this person")),
      t.input({
        id: "groundwork-erase-typed", name: "typed", type: "text", autocomplete: "off", spellcheck: false, autofocus: true,
        placeholder: () => data.email || id, disabled: () => data.busy,
        value: () => data.typed, oninput: (event) => (data.typed = event.target.value),
      })),
  );
  const receipt = () => t.div(null,
    t.p({ role: "status" }, () => stages[data.status] || data.status),
    t.p(null, "Receipt: ", t.strong(null, data.receipt), " in erasures"),
    () => Object.keys(data.counts).length > 0 && t.table({ className: "responsive-table" },
      t.thead(null, t.tr(null, t.th({ scope: "col" }, "Deleted or emptied"), t.th({ scope: "col", className: "txt-right" }, "How many"))),
      t.tbody(null, ...Object.entries(data.counts).sort().map(([what, n]) => t.tr(null, t.td(null, words[what] || what), t.td({ className: "txt-right" }, String(n)))))),
  );

  const element = dialog({
    title: () => data.receipt ? "This person is erased" : "Erase this person",
    closable: () => !data.busy,
    closed: () => (open = false),
    content: [
      () => data.receipt ? receipt() : question(),
      () => data.error && t.div({ className: "alert danger m-t-base", role: "alert" }, data.error),
    ],
    buttons: [
      button({ text: () => data.receipt ? "Close" : "Cancel", className: "transparent m-r-auto", "html-data-close": "", disabled: () => data.busy, onclick: () => closeModal(element) }),
      button({ text: "Show the receipt", className: "outline", hidden: () => !data.receipt, onclick: () => show("erasures", data.receipt) }),
      button({ text: "Export first (.zip)", className: () => `outline ${data.exporting ? "loading" : ""}`, hidden: () => !!data.receipt, disabled: () => data.exporting || data.busy, onclick: exportFirst }),
      t.button({ type: "submit", "html-form": "groundwork-erase", className: () => `btn danger ${data.busy ? "loading" : ""}`, hidden: () => !!data.receipt, disabled: () => data.busy || !ready(data) },
        t.span({ className: "txt" }, "Erase this person")),
    ],
  });
}
