package sms

import (
	"strconv"
	"time"

	api "github.com/twilio/twilio-go/rest/api/v2010"

	"github.com/groundworkhq/groundwork/notifications"
)

// NewReceipt reads what Twilio says of a message: its status, and for one that
// failed the error code (0: none). ok is false for a status that says nothing
// about a message that was sent.
func NewReceipt(status string, code int) (r notifications.Receipt, ok bool) {
	switch status {
	case "accepted", "scheduled", "queued", "sending", "sent":
		r.State = notifications.ReceiptTaken
	case "delivered", "partially_delivered":
		r.State = notifications.ReceiptDelivered
	case "read":
		r.State = notifications.ReceiptRead
	case "undelivered", "failed":
		r.State = notifications.ReceiptFailed
		r.Reason, r.Explanation, r.Suppress = failure(code)
	case "canceled":
		r.State, r.Reason, r.Explanation = notifications.ReceiptFailed, notifications.ReasonUndelivered, "It was cancelled at Twilio before it went out."
	default:
		return r, false
	}
	if code != 0 {
		r.Code = strconv.Itoa(code)
	}
	return r, true
}

// failure says why a message that Twilio took did not arrive.
func failure(code int) (reason, sentence, suppress string) {
	switch code {
	case 30003:
		return notifications.ReasonUnreachable, "The phone could not be reached: switched off, or without a network.", ""
	case 30004, 30007, 30034:
		reason = notifications.ReasonFiltered
		if code == 30004 {
			reason = notifications.ReasonRecipientBlocked
		}
		return reason, verdicts[code].sentence, ""
	case 30005, 30006, 21211, 21614, 21635:
		return notifications.ReasonRecipientBlocked, verdicts[code].sentence, notifications.SuppressBounce
	case codeStopped:
		return notifications.ReasonRecipientBlocked, verdicts[code].sentence, notifications.SuppressStop
	case 30001:
		return notifications.ReasonUndelivered, "The sender's queue at Twilio was full.", ""
	case 30008:
		return notifications.ReasonUndelivered, "The network did not say why this message did not arrive.", ""
	case 30036:
		return notifications.ReasonUnreachable, "It could not be passed on in time, and was thrown away.", ""
	case 30047, 30610:
		return notifications.ReasonUndelivered, "It was too early or too late where this person lives.", ""
	case 0:
		return notifications.ReasonUndelivered, "The network did not deliver this message.", ""
	}
	if v, known := verdicts[code]; known && v.kind != notifications.Retry {
		reason = notifications.ReasonUndelivered
		if v.kind == notifications.RecipientBlocked {
			reason = notifications.ReasonRecipientBlocked
		}
		return reason, v.sentence, ""
	}
	return notifications.ReasonUndelivered, "The network did not deliver this message" + said(strconv.Itoa(code)) + ".", ""
}

func receiptOf(m *api.ApiV2010Message) notifications.Receipt {
	status, code := "", 0
	if m.Status != nil {
		status = *m.Status
	}
	if m.ErrorCode != nil {
		code = *m.ErrorCode
	}
	r, ok := NewReceipt(status, code)
	if !ok {
		r.State = notifications.ReceiptTaken
	}
	if m.Sid != nil {
		r.ProviderMessageID = *m.Sid
	}
	if m.To != nil {
		r.Address = *m.To
	}
	if m.DateCreated != nil {
		r.CreatedAt, _ = time.Parse(time.RFC1123Z, *m.DateCreated)
	}
	return r
}
