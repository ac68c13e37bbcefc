// "Export everything about this person": GET /api/accounts/{collection}/{id}/export.
import { button, dialog } from "../dialog.js";
import { closeModal, done, record, request, save, store, t } from "../pocketbase.js";

// download fetches the export in one of its two forms.
export async function download({ collection, id }, format) {
  const response = await request(`/api/accounts/${encodeURIComponent(collection.name)}/${encodeURIComponent(id)}/export?format=${format}`);
  const date = new Date().toISOString().slice(0, 10);
  save(await response.blob(), `export-${collection.name}-${id}-${date}.${format}`);
}

export async function openExport({ collection, id }) {
  const data = store({ name: id, busy: "", error: "" });
  record(collection.name, id).then((r) => (data.name = r.email || id), () => {}); // the id does as well

  const get = async (format) => {
    if (data.busy) return;
    data.busy = format;
    data.error = "";
    try {
      await download({ collection, id }, format);
      data.busy = "";
      done("The export is downloaded. It is personal: keep it only as long as you need it.");
      closeModal(element);
    } catch (error) {
      data.busy = "";
      data.error = error.message;
    }
  };
  const form = (format, text, className) =>
    button({ text, className: () => `${className} ${data.busy === format ? "loading" : ""}`, disabled: () => !!data.busy, onclick: () => get(format) });

  const element = dialog({
    title: "Export everything about this person",
    closable: () => !data.busy,
    content: [
      t.p(null, "One file with all that is kept about ", t.strong(null, () => data.name),
        ": the account, sign-ins, devices, messages and what became of them, the records that name this person, and the log. "
        + "Passwords, keys and fields that are hidden from everybody are not in it."),
      t.p({ className: "txt-hint" }, "JSON lists the uploaded files; the archive holds the files, too, and is the form to hand to a person."),
      () => data.error && t.div({ className: "alert danger", role: "alert" }, data.error),
    ],
    buttons: [
      button({ text: "Cancel", className: "transparent m-r-auto", disabled: () => !!data.busy, onclick: () => closeModal(element) }),
      form("zip", "Download archive (.zip)", "outline"),
      form("json", "Download JSON", ""),
    ],
  });
}
