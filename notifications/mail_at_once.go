package notifications

import (
	"context"
	"errors"
	"fmt"
)

// SendMailAtOnce hands a mail to the provider itself, without a row, a job or a retry.
// It writes nothing: it is for what must be told when the disk is full. The error means
// that it did not leave; its address is not in it.
func (s *Sender) SendMailAtOnce(ctx context.Context, m Mail) error {
	if m.ExpiresAt.IsZero() {
		m.ExpiresAt = s.now().Add(DefaultMailLife)
	}
	row := &deliveryRow{ID: newDeliveryIDs(s.now(), 1)(), User: m.UserID, Channel: string(ChannelEmail), RequestID: m.RequestID}
	msg := accountMessageOf(row, &sealedMail{To: m.To, ToName: m.ToName, Email: m.Email}, m.ExpiresAt)
	if s.captures(msg, "") {
		return errors.New("mails are not sent in this environment")
	}
	active, err := s.providers.Active(s.app, Route{Channel: providerChannel(msg.Channel, msg.Kind)})
	if err != nil {
		return fmt.Errorf("find provider of a mail: %w", err)
	}
	if err := active.Gate.AcquireUrgent(ctx); err != nil {
		return fmt.Errorf("wait for the provider of a mail: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, handOverTimeout)
	defer cancel()
	outcome := safeSend(ctx, s.log, active.Adapter, msg)
	active.Gate.Release(outcome)
	s.log.Info("delivery past the queue", "delivery", row.ID, "channel", row.Channel, "provider", active.ID, "outcome", outcome.Kind.String(), "code", outcome.Code)
	if outcome.Kind != Accepted && outcome.Kind != Ambiguous {
		return fmt.Errorf("the provider did not take a mail: %s", orElse(outcome.Explanation, outcome.Kind.String()))
	}
	return nil
}
