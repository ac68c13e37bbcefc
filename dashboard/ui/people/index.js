// Export and erase in the panel of an account, whatever collection of accounts it
// is in. Superusers have none: they are staff.
import { menuEntry, onRecordMenu } from "../pocketbase.js";
import { openErase } from "./erase.js";
import { openExport } from "./export.js";

export function start() {
  onRecordMenu(({ panel, collection, id, close }) => {
    if (collection.type !== "auth" || collection.name === "_superusers") return [];
    const opens = (open) => () => {
      close();
      open({ panel, collection, id });
    };
    return [
      menuEntry({ icon: "ri-download-2-line", text: "Export everything about this person…", onclick: opens(openExport) }),
      menuEntry({ icon: "ri-user-unfollow-line", text: "Erase this person…", danger: true, onclick: opens(openErase) }),
    ];
  });
}
