package notifications

import (
	"context"
	"fmt"
	"time"
)

// The two kinds of SMS have types of their own and senders of their own, with
// no interface in common: a promotional text can not be handed to a
// transactional sender, because no code can be written that does.

// TransactionalSMS is a text that answers something its recipient did. Only
// [NewTransactionalSMS] makes one that can be sent.
type TransactionalSMS struct {
	sms
	_ struct{ transactional byte }
}

// PromotionalSMS is a text that needs consent. Only [NewPromotionalSMS] makes
// one that can be sent.
type PromotionalSMS struct {
	sms
	_ struct{ promotional byte }
}

// sms is what both kinds consist of.
type sms struct {
	deliveryID, requestID, to, body string
	expires                         time.Time

	// For the way over another machine.
	userID string
	try    try
}

// DeliveryID is the id of the delivery row.
func (s sms) DeliveryID() string { return s.deliveryID }

// RequestID is the HTTP request that led here; may be empty.
func (s sms) RequestID() string { return s.requestID }

// To is the recipient's number in E.164, such as +15005550006.
func (s sms) To() string { return s.to }

// Body is the text.
func (s sms) Body() string { return s.body }

// Expires is when the text is of no use any more; zero when nobody knows.
func (s sms) Expires() time.Time { return s.expires }

// NewTransactionalSMS refuses a message of any other kind or channel.
func NewTransactionalSMS(m *Message) (TransactionalSMS, error) {
	raw, err := newSMS(m, KindTransactional)
	return TransactionalSMS{sms: raw}, err
}

// NewPromotionalSMS refuses a message of any other kind or channel.
func NewPromotionalSMS(m *Message) (PromotionalSMS, error) {
	raw, err := newSMS(m, KindPromotional)
	return PromotionalSMS{sms: raw}, err
}

func newSMS(m *Message, kind Kind) (sms, error) {
	if m.Channel != ChannelSMS || m.Kind != kind {
		return sms{}, fmt.Errorf("a %s message on the channel %s cannot become a %s SMS", m.Kind, m.Channel, kind)
	}
	return sms{m.DeliveryID, m.RequestID, m.Target.Address, m.Body, m.Expires, m.Target.UserID, m.try}, nil
}

// TransactionalSMSSender hands over transactional texts, under the rules of
// [Provider.Send].
type TransactionalSMSSender interface {
	SendTransactional(ctx context.Context, m TransactionalSMS) Outcome
}

// PromotionalSMSSender hands over promotional texts, under the rules of
// [Provider.Send].
type PromotionalSMSSender interface {
	SendPromotional(ctx context.Context, m PromotionalSMS) Outcome
}

// refuseSMS returns the result of SMS that must not go out whatever the
// environment is; nil when they may. All items of a pass are of one kind.
func (s *Sender) refuseSMS(items []item) (*result, error) {
	if len(items) == 0 || items[0].msg.Channel != ChannelSMS {
		return nil, nil
	}
	m, route := items[0].msg, items[0].route
	ours, other, err := s.providers.smsSenders(s.app, route.Channel)
	switch {
	case err != nil:
		return nil, err
	case !ours && (other || !s.opts.CaptureAll):
		// Also where messages are captured: the gap would only be found in
		// production.
		return noProviderResult(m, route), nil
	default:
		return nil, nil
	}
}
