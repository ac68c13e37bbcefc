// What an owner does with a message besides writing it: see it as somebody would get
// it, send it to one address first, send the failed ones again.
import { ask, done, failed, menuEntry, onRecordMenu, record, request } from "../pocketbase.js";
import { openPreview } from "./preview.js";
import { openTest } from "./test.js";

// sendAgain asks the server and says how many went out.
const sendAgain = async (path, sentence) => {
  try {
    done(sentence(await request(path, "POST").then((r) => r.json())));
  } catch (error) {
    failed(error.message);
  }
};

export function start() {
  onRecordMenu(({ collection, id, close }) => {
    const entry = (icon, text, open) => menuEntry({ icon, text, onclick: () => (close(), open()) });
    switch (collection.name) {
      case "notifications":
        return [
          entry("ri-eye-line", "Preview…", () => openPreview({ id })),
          entry("ri-send-plane-line", "Send a test…", () => openTest(id)),
          entry("ri-restart-line", "Send the failed ones again…", () =>
            ask("Send the messages that failed again? Everybody else gets nothing twice.", () =>
              sendAgain(`/api/notifications/${id}/retry`, ({ retried }) => `${retried} ${retried === 1 ? "message is" : "messages are"} sent again.`))),
        ];
      case "notification_templates":
        return [entry("ri-eye-line", "Preview…", async () => {
          const template = await record(collection.name, id).catch(() => ({ id }));
          openPreview({ template });
        })];
      case "notification_deliveries":
        return [entry("ri-restart-line", "Send this one again…", () =>
          ask("Send this message to this person again? It is a new delivery, beside this one.", () =>
            sendAgain(`/api/notifications/deliveries/${id}/resend`, () => "It is sent again.")))];
      default:
        return [];
    }
  });
}
