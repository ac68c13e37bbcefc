// "Send a test…": POST /api/notifications/{id}/test, to one person or address only.
import { button, dialog } from "../dialog.js";
import { closeModal, findPerson, request, show, store, t } from "../pocketbase.js";
import { channels } from "./preview.js";

const became = {
  pending: "is being sent", sending: "is being sent", captured: "kept here, because this is not production", accepted: "sent", delivered: "delivered",
  opened: "opened", failed: "failed", skipped: "skipped", unknown: "not known", cancelled: "cancelled",
};

export function openTest(id) {
  const data = store({ who: "", busy: false, error: "", deliveries: [] });

  const send = async () => {
    if (data.busy || !data.who.trim()) return;
    data.busy = true;
    data.error = "";
    data.deliveries = [];
    try {
      const who = data.who.trim();
      // A person gets it on all channels; an address of nobody's on its own.
      const person = await findPerson(who).catch(() => null);
      const body = person ? { user: person.id } : { address: who };
      data.deliveries = await request(`/api/notifications/${id}/test`, "POST", body).then((r) => r.json()).then((r) => r.deliveries);
    } catch (error) {
      data.error = error.message;
    }
    data.busy = false;
  };

  const element = dialog({
    title: "Send a test",
    content: [
      t.p({ className: "txt-hint" }, "The message as it is saved goes to this person or address only, marked as a test."),
      t.form({ id: "groundwork-test", onsubmit: (event) => (event.preventDefault(), send()) },
        t.div({ className: "field" },
          t.label({ htmlFor: "groundwork-test-who" }, t.span({ className: "txt" }, "A person's e-mail address or id, or any e-mail address or phone number")),
          t.input({ id: "groundwork-test-who", name: "who", type: "text", autocomplete: "off", spellcheck: false, autofocus: true, value: () => data.who, oninput: (e) => (data.who = e.target.value) }))),
      () => data.error && t.div({ className: "alert danger m-t-base", role: "alert" }, data.error),
      t.div({ role: "status" }, () => data.deliveries.length > 0 && t.ul({ className: "m-t-base" }, ...data.deliveries.map((d) =>
        t.li({ "html-data-test": d.channel }, `${channels[d.channel]}: ${became[d.status] ?? d.status} `,
          t.button({ type: "button", className: "btn sm transparent", onclick: () => show("notification_deliveries", d.id) }, t.span({ className: "txt" }, "Show what became of it")))))),
    ],
    buttons: [
      button({ text: "Close", className: "transparent m-r-auto", onclick: () => closeModal(element) }),
      t.button({ type: "submit", "html-form": "groundwork-test", className: () => `btn ${data.busy ? "loading" : ""}`, disabled: () => !data.who.trim() }, t.span({ className: "txt" }, "Send the test")),
    ],
  });
}
