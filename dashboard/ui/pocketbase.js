// All that the extension knows of PocketBase's dashboard. Its interface for
// extensions is experimental: what another version names or builds differently is
// changed here.
// https://github.com/pocketbase/pocketbase/tree/v0.40.4/ui/src

const { app, t, store } = window;

// t makes elements (t.div({className: "x"}, children)), store makes objects whose
// changes are shown by the functions among an element's properties and children.
// A property that begins with "html-" becomes an attribute.
export { store, t };

// request asks the server as the superuser who is signed in. It returns the answer,
// or throws an Error with the server's sentence. Whoever is no longer signed in is
// led to the sign-in page.
export async function request(path, method = "GET", body = undefined) {
  const headers = { Authorization: app.pb.authStore.token };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(app.pb.buildURL(path), { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  if (response.status === 401) {
    app.modals.close(null, true);
    app.pb.authStore.clear();
  }
  const error = new Error(answer.message || `The server answered ${response.status}.`);
  error.fields = answer.data || {}; // the sentences at the fields
  throw error;
}

// record reads one record; it throws as the SDK does.
export const record = (collection, id) => app.pb.collection(collection).getOne(id, { requestKey: null });

// findPerson returns the account of those who are notified whose e-mail address or id
// this is; it throws a sentence when there is none.
export async function findPerson(who) {
  const people = app.store.collections.find((c) => c.name === "notifications")?.fields.find((f) => f.name === "users")?.collectionId;
  const filter = app.pb.filter("id = {:who} || email:lower = {:lower}", { who, lower: who.toLowerCase() });
  const found = await app.pb.collection(people ?? "users").getList(1, 1, { filter, requestKey: null });
  if (!found.items.length) throw new Error(`There is nobody with the e-mail address or id ${who}.`);
  return found.items[0];
}

export const done = (sentence) => app.toasts.success(sentence);
export const failed = (sentence) => app.toasts.error(sentence);

// save gives a file to the person at the browser.
export function save(blob, name) {
  app.utils.download(URL.createObjectURL(blob), name);
}

// show opens a record for reading, above what is open.
export const show = (collectionName, id) => app.modals.openRecordPreview({ id, collectionName });

// openModal shows an element of the class "modal"; the callbacks are onbeforeclose
// and onafterclose among its properties.
export function openModal(element) {
  document.body.append(element);
  app.modals.open(element);
}

export const closeModal = (element) => app.modals.close(element);

// deleted tells the lists on the page that a record is gone, and closes its panel.
export function deleted(panel, collection, id) {
  document.dispatchEvent(new CustomEvent("record:delete", { detail: { id, collectionId: collection.id, collectionName: collection.name } }));
  if (panel.isConnected) app.modals.close(panel, true);
}

// onRecordMenu calls entries with the collection and the id of each record whose
// panel is opened, once its menu ("More options") is there. What it returns stands
// first in the menu; nothing, or an empty list, leaves it as it is.
export function onRecordMenu(entries) {
  document.addEventListener("mount:recordUpsertModal", ({ detail: panel }) => {
    const placed = new WeakSet(); // the panel makes a new menu when a record is made or copied
    const place = () => {
      const menu = panel.querySelector(".modal-header-dropdown");
      if (!menu || placed.has(menu)) return;
      const name = panel.querySelector(".modal-header .collection-name")?.textContent;
      const id = panel.querySelector('[name="id"]')?.value;
      const collection = app.store.collections.find((c) => c.name === name);
      if (!collection || !id) return; // the fields are still to come, or the record is
      placed.add(menu);
      const items = entries({ panel, collection, id, close: () => menu.hidePopover() });
      if (!items?.length) return;
      menu.prepend(...items, t.hr());
      menu.style.maxHeight = "80vh"; // all of it without scrolling
    };
    place();
    new MutationObserver(place).observe(panel, { childList: true, subtree: true });
  });
}

// onRecordForm calls build once for each form of a record of the collection with that
// id. What it returns stands above the fields: an element, and changed, which is called
// with what the form says at the moment, at first and whenever that changes. values has
// the texts of the named fields; a choice is the text that is shown.
export function onRecordForm(collectionID, names, build) {
  document.addEventListener("mount:recordUpsertModal", ({ detail: panel }) => {
    let form, before, scheduled;
    const look = () => {
      scheduled = null;
      const collection = app.store.collections.find((c) => c.id === collectionID);
      if (!collection || panel.querySelector(".modal-header .collection-name")?.textContent !== collection.name) return;
      const content = panel.querySelector(".modal-content");
      if (!content) return;
      form ??= build({ panel, collection });
      if (form.element.parentElement !== content) content.prepend(form.element);
      const values = { id: panel.querySelector('[name="id"]')?.disabled ? panel.querySelector('[name="id"]').value : "" };
      for (const name of names) values[name] = valueOf(panel, name);
      const now = JSON.stringify(values);
      if (now !== before) {
        before = now;
        form.changed(values);
      }
    };
    const later = () => (scheduled ??= setTimeout(look, 50));
    look();
    panel.addEventListener("input", later);
    panel.addEventListener("change", later);
    // What is loaded, or put back, comes without an event.
    new MutationObserver(later).observe(panel, { childList: true, subtree: true, characterData: true });
  });
}

// valueOf is what the field of a form says.
function valueOf(panel, name) {
  const input = panel.querySelector(`textarea[name="${name}"], input[name="${name}"]`);
  if (input) return input.value.trim();
  const choice = panel.querySelector(`.input.select[name="${name}"] .selected-container`)?.innerText.trim() ?? "";
  return choice.startsWith("-") ? "" : choice; // "- Select -"
}

// menuEntry is a line of a menu.
export const menuEntry = ({ icon, text, danger = false, onclick }) =>
  t.button({ type: "button", className: `dropdown-item ${danger ? "txt-danger" : ""}`, onclick },
    t.i({ className: icon, ariaHidden: true }),
    t.span({ className: "txt" }, text));

// pageShell is a page in the looks of the dashboard.
export function pageShell({ title, content, onmount = () => {}, onunmount = () => {} }) {
  app.store.title = title;
  return t.div({ className: "page", onmount: () => onmount(), onunmount: () => onunmount() },
    t.div({ className: "page-content full-height" },
      t.header({ className: "page-header" }, t.nav({ className: "breadcrumbs" }, t.div(null, title))),
      ...content,
      t.footer({ className: "page-footer" }, app.components.credits())));
}

// ask calls yes when the person agrees.
export const ask = (question, yes) => app.modals.confirm(question, yes);

// when shows a time of the server on the clock of the person at the browser.
export const when = (text) => new Date(text.replace(" ", "T")).toLocaleString();
