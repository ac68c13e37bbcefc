package notifications

import (
	"fmt"
	"strings"
	"time"
)

// resultOf translates an outcome into what is stored.
func (s *Sender) resultOf(row *deliveryRow, o Outcome, providerID string) *result {
	now := s.now()
	r := &result{Provider: providerID, ProviderMessageID: o.ProviderMessageID, Explanation: o.Explanation, Tried: row.mayRepeat()}
	switch o.Kind {
	case Accepted:
		r.Status, r.Explanation = DeliveryAccepted, ""
	case Retry:
		r.Status = DeliveryPending
		r.NextAttemptAt = now.Add(max(o.RetryAfter, s.opts.Retry.Delay(row.Attempts+1)))
		if o.notBegun {
			r.NextAttemptAt, r.Tried = now, false
		}
		since := row.dueSince()
		if !row.hasFailed() && now.Sub(since) > s.opts.Retry.MaxAge {
			// It has waited for somebody (a provider was put right, a pause ended, it was
			// asked for again), and is tried for as long as any other from now on.
			since, r.HeldUntil = now, now
		}
		if r.NextAttemptAt.Sub(since) > s.opts.Retry.MaxAge {
			r.Status, r.Reason, r.NextAttemptAt = DeliveryFailed, ReasonRetriesExhausted, time.Time{}
			r.Explanation = "Given up after " + plainDuration(s.opts.Retry.MaxAge) + ": " + o.Explanation
		}
	case TargetGone:
		r.Status, r.Reason = DeliveryFailed, ReasonTargetGone
	case RecipientBlocked:
		r.Status, r.Reason = DeliveryFailed, ReasonRecipientBlocked
	case PayloadBad:
		r.Status, r.Reason = DeliveryFailed, ReasonPayloadRefused
	case ConfigBad:
		r.Status = DeliveryPending
	case Ambiguous:
		if row.mayRepeat() && row.Attempts < 3 {
			r.Status, r.NextAttemptAt = DeliveryPending, now.Add(s.opts.Retry.Delay(row.Attempts+1))
			break
		}
		r.Status, r.Reason = DeliveryUnknown, ReasonNoAnswer
	}
	return r
}

func noProviderResult(m *Message, route Route) *result {
	sentence := "Nothing is set up to send on this channel: add a provider in notification_providers."
	switch route.Channel {
	case ProviderEmailTransactional, ProviderEmailPromotional:
		sentence = "No mail server is set up: set SMTP_HOST, use Settings > Mail settings, or add a provider in notification_providers."
	case ProviderSMSTransactional, ProviderSMSPromotional:
		sentence = fmt.Sprintf("No sender for %s SMS is set up: add a provider of the channel %s in notification_providers, or set TWILIO_%s_SENDER. The other SMS sender never steps in.",
			m.Kind, route.Channel, strings.ToUpper(string(m.Kind)))
	case ProviderAPNs, ProviderFCM, ProviderWebPush:
		if route.Channel == ProviderWebPush {
			sentence = "Web Push is switched off: switch its provider on in notification_providers."
			break
		}
		sentence = fmt.Sprintf("Nothing is set up to push to this device: add a provider of the channel %s in notification_providers.", route.Channel)
		if route.App != "" {
			sentence = fmt.Sprintf("Nothing is set up to push to the app %s: add a provider of the channel %s for it in notification_providers.", route.App, route.Channel)
		}
	}
	return &result{Status: DeliveryFailed, Reason: ReasonNoProvider, Explanation: sentence}
}

// captured is the result of keeping a message here.
func (s *Sender) captured(m *Message, keepContent bool) *result {
	r := &result{Status: DeliveryCaptured, Reason: ReasonCaptured, Provider: captureProvider, Tried: true,
		Explanation: "Kept here instead of sent, because APP_ENV is not production."}
	if m.Channel == ChannelPush {
		r.Explanation += " To let the devices of this person get theirs, put the person's e-mail address into SEND_ONLY_TO."
	}
	if keepContent {
		rendered := mustJSON(renderedView(m))
		r.Rendered = &rendered
	}
	return r
}

// renderedView is the rendered field of a captured delivery.
func renderedView(m *Message) map[string]any {
	v := map[string]any{"title": m.Title, "body": m.Body}
	if m.Email != nil {
		v = map[string]any{"subject": m.Email.Subject, "text": m.Email.Text, "html": m.Email.HTML}
		if m.Email.Unsubscribe != "" {
			v[unsubscribeVar] = m.Email.Unsubscribe
		}
	}
	if m.Link != "" {
		v["link"] = m.Link
	}
	if m.Image != "" {
		v["image"] = m.Image
	}
	if len(m.Data) > 0 {
		v["data"] = m.Data
	}
	return v
}

func plainDuration(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", int(d.Minutes()))
	default:
		return d.String()
	}
}
