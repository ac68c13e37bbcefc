// A dialog in the looks of the dashboard, and what its own dialogs leave out: a
// role and a name for screen readers, Tab that stays inside, Escape from a field,
// and the focus back where it was.
import { closeModal, openModal, t } from "./pocketbase.js";

const reachable = "button:not([disabled]):not([hidden]), input:not([disabled]), a[href], summary, [tabindex='0']";
let count = 0;

// dialog opens one and returns it. content and buttons are what stands in it;
// scrolls lets a long content without anything to reach in it scroll by keyboard;
// closable tells whether it may be closed at this moment; closed is called when it
// was. Close it with closeModal.
export function dialog({ title, content, buttons, size = "", scrolls = false, closable = () => true, closed = () => {} }) {
  const id = `groundwork-dialog-${++count}`;
  const before = document.activeElement;
  const element = t.div(
    {
      className: `modal popup ${size}`,
      role: "dialog",
      ariaModal: "true",
      "html-aria-labelledby": id,
      onbeforeclose: () => closable(),
      onafterclose: (el) => {
        el?.remove();
        closed();
        // After the dashboard, which takes the focus away at that moment. Another
        // dialog that was opened meanwhile keeps it.
        setTimeout(() => {
          const other = [...document.querySelectorAll('.modal[role="dialog"]')].find((el) => el !== element && el.checkVisibility());
          if (!other) (before?.isConnected && before.checkVisibility() ? before : fallback())?.focus();
          else if (!other.contains(document.activeElement)) (other.querySelector("[autofocus]") ?? other).focus();
        }, 50);
      },
      onkeydown: (event) => {
        if (event.key === "Escape") {
          event.stopPropagation();
          event.preventDefault();
          closeModal(element);
        }
        if (event.key === "Tab") stay(event, element);
      },
    },
    t.header({ className: "modal-header" }, t.h5({ id, className: "modal-title" }, title)),
    t.div({ className: "modal-content", "html-tabindex": scrolls ? "0" : undefined }, ...content),
    t.footer({ className: "modal-footer" }, ...buttons),
  );
  openModal(element);
  return element;
}

// The line of a menu that led here is hidden by now: the menu's own button is next
// to it.
function fallback() {
  return document.querySelector('.modal[data-modal-state="open"] [title="More options"]');
}

function stay(event, element) {
  const all = [...element.querySelectorAll(reachable)].filter((el) => el.checkVisibility());
  if (!all.length) return;
  const first = all[0], last = all[all.length - 1], at = document.activeElement;
  if (event.shiftKey && (at === first || at === element)) {
    event.preventDefault();
    last.focus();
  } else if (!event.shiftKey && at === last) {
    event.preventDefault();
    first.focus();
  }
}

export const button = ({ text, className = "", ...rest }) =>
  t.button({ type: "button", className: typeof className === "function" ? () => `btn ${className()}` : `btn ${className}`, ...rest }, t.span({ className: "txt" }, text));
