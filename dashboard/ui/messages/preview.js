// "Preview…": POST /api/notifications/preview for a stored notification, or for a
// template with all channels that it has words for. Sends nothing.
import { button, dialog } from "../dialog.js";
import { closeModal, findPerson, request, store, t } from "../pocketbase.js";

export const channels = { push: "Push", inbox: "In-app inbox", email: "E-mail", sms: "SMS" };

const plural = (n, one, many) => `${n.toLocaleString()} ${n === 1 ? one : many}`;

// duration says seconds as a person would.
function duration(seconds) {
  if (seconds < 90) return plural(Math.ceil(seconds), "second", "seconds");
  if (seconds < 5400) return plural(Math.round(seconds / 60), "minute", "minutes");
  return plural(Math.round(seconds / 3600), "hour", "hours");
}

// channelsOf a template are those that it has words for.
function channelsOf(template) {
  const all = [];
  if (template.title || template.body) all.push("push", "inbox");
  if (template.emailSubject || template.emailHtml || template.body) all.push("email");
  if (template.smsBody || template.body) all.push("sms");
  return all;
}

export function openPreview({ id, template }) {
  const data = store({ who: "", variables: "", answer: null, busy: false, error: "" });
  let asked = 0;

  // The last question counts: whoever asks while another answer is on its way is not kept
  // waiting for it, and does not see it.
  const look = async () => {
    const number = ++asked;
    data.busy = true;
    data.error = "";
    try {
      const person = data.who.trim() ? await findPerson(data.who.trim()) : null;
      const body = id ? { id } : { template: template.id, category: template.category, channels: channelsOf(template), audience: person ? "users" : "everyone", users: person ? [person.id] : [] };
      if (person) body.sample = person.id;
      if (data.variables.trim()) {
        try {
          body.variables = JSON.parse(data.variables);
        } catch {
          throw new Error('The variables are not JSON: write them like {"code": "A1"}.');
        }
      }
      const answer = await request("/api/notifications/preview", "POST", body).then((r) => r.json());
      if (number !== asked) return;
      data.answer = answer;
    } catch (error) {
      if (number !== asked) return;
      data.answer = null;
      data.error = error.message;
    }
    data.busy = false;
  };

  const counts = (p) => t.table({ className: "responsive-table" },
    t.thead(null, t.tr(null, ...["Channel", "Messages", "People", "Without address", "Takes", "Costs"].map((name) => t.th({ scope: "col" }, name)))),
    t.tbody(null, ...p.channels.flatMap((c) => [
      t.tr(null,
        t.th({ scope: "row" }, channels[c.channel]),
        t.td(null, c.targets.toLocaleString()),
        t.td(null, c.people.toLocaleString()),
        t.td(null, c.withoutAddress.toLocaleString()),
        t.td(null, c.seconds == null ? "–" : duration(c.seconds)),
        t.td(null, !c.sms ? "–" : c.sms.cost == null
          ? `${c.sms.estimated ? "about " : ""}${plural(c.sms.segments, "segment", "segments")}; enter a price at the sender to see the cost`
          : `${c.sms.estimated ? "about " : ""}${c.sms.cost.toFixed(2)} ${c.sms.currency} (${plural(c.sms.segments, "segment", "segments")})`)),
      ...(c.senders ?? []).filter((s) => s.problem).map((s) => t.tr(null, t.td({ colSpan: 6 },
        t.div({ className: `alert ${p.captured ? "" : "warning"}` }, p.captured ? "In production nothing would leave: " : "", s.problem)))),
    ])));

  const message = (channel, m) => t.div({ className: "m-b-base", "html-data-preview": channel },
    t.h6({ className: "m-b-5" }, channels[channel]),
    channel === "email"
      ? [
        t.p(null, t.strong(null, m.subject)),
        // Nothing in it runs, and nothing of it reaches this page.
        t.iframe({ title: "The e-mail", "html-sandbox": "", srcdoc: m.html, style: "width:100%;height:22rem;border:1px solid var(--baseAlt2Color, #ccc);border-radius:6px;background:#fff" }),
        t.details({ className: "m-t-5" }, t.summary(null, "As plain text"), t.pre({ style: "white-space:pre-wrap" }, m.text)),
      ]
      : t.div({ className: "alert", style: `max-width:22rem;border-radius:1rem;white-space:pre-wrap;overflow-wrap:anywhere` },
        m.title ? [t.strong(null, m.title), t.br()] : null, m.body ?? "", m.link ? t.div({ className: "txt-hint" }, m.link) : null));

  const result = () => {
    const p = data.answer;
    if (!p) return;
    return t.div({ "html-data-preview": "answer" },
      id ? t.p(null, `It reaches ${plural(p.people, "person", "people")}. `, p.captured ? "Outside production messages are kept here instead of sent." : "") : null,
      id ? counts(p) : null,
      p.sample ? null : t.p({ className: "txt-hint" }, "There is nobody yet to show it for."),
      !p.sample ? null : t.p({ className: "m-t-base" }, "As ", t.strong(null, data.who.trim() || p.sample.user), " would get it", p.sample.locale ? ` (${p.sample.locale})` : "", ":"),
      p.sample?.skipped ? t.div({ className: "alert warning m-b-base" }, p.sample.skipped) : null,
      ...Object.entries(p.sample?.messages ?? {}).map(([channel, m]) => message(channel, m)));
  };

  const element = dialog({
    title: "Preview",
    size: "lg",
    content: [
      t.p({ className: "txt-hint" }, "As it is saved. Nothing is sent."),
      t.form({ id: "groundwork-preview", onsubmit: (event) => (event.preventDefault(), look()) },
        t.div({ className: "field" },
          t.label({ htmlFor: "groundwork-preview-who" }, t.span({ className: "txt" }, "Show it for (e-mail address or id; empty: anybody)")),
          t.input({ id: "groundwork-preview-who", name: "who", type: "text", autocomplete: "off", spellcheck: false, autofocus: true, value: () => data.who, oninput: (e) => (data.who = e.target.value) })),
        !template ? null : t.div({ className: "field m-t-base" },
          t.label({ htmlFor: "groundwork-preview-variables" }, t.span({ className: "txt" }, 'Values of its own variables, as JSON, such as {"code": "A1"}')),
          t.textarea({ id: "groundwork-preview-variables", name: "variables", rows: 2, value: () => data.variables, oninput: (e) => (data.variables = e.target.value) }))),
      () => data.error && t.div({ className: "alert danger m-t-base", role: "alert" }, data.error),
      t.div({ className: "m-t-base", role: "status" }, result),
    ],
    buttons: [
      button({ text: "Close", className: "transparent m-r-auto", onclick: () => closeModal(element) }),
      t.button({ type: "submit", "html-form": "groundwork-preview", className: () => `btn ${data.busy ? "loading" : ""}` }, t.span({ className: "txt" }, "Show")),
    ],
  });
  look();
}
