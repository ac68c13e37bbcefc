package hooks

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/notifications"
)

// alertLife is how long a mail to the superusers is tried: what it says is not over
// within the hour.
const alertLife = 24 * time.Hour

// tellSuperusers sends a mail to every superuser, on the way that PocketBase's own
// mails take.
func (g *groundwork) tellSuperusers(txApp core.App, subject, text string) error {
	if g.sender == nil {
		return nil
	}
	mails, err := g.alerts(txApp, subject, text)
	if err != nil {
		return err
	}
	for _, mail := range mails {
		if _, err := g.sender.EnqueueMail(txApp, mail); err != nil {
			return err
		}
	}
	return nil
}

// tellSuperusersAtOnce hands the mails to the mail server itself: the disk has no room
// for what a queue needs. It has told them when one of them was reached.
func (g *groundwork) tellSuperusersAtOnce(ctx context.Context, subject, text string) error {
	if g.sender == nil {
		return errors.New("this process does not send")
	}
	mails, err := g.alerts(g.app, subject, text)
	if err != nil {
		return err
	}
	var problems []error
	for _, mail := range mails {
		if err := g.sender.SendMailAtOnce(ctx, mail); err != nil {
			problems = append(problems, err)
		}
	}
	if len(problems) < len(mails) {
		for _, err := range problems {
			g.log.Error("a superuser cannot be told", "error", err)
		}
		return nil
	}
	return errors.Join(append(problems, errors.New("no superuser was reached"))...)
}

func (g *groundwork) alerts(app core.App, subject, text string) ([]notifications.Mail, error) {
	all, err := app.FindAllRecords(core.CollectionNameSuperusers)
	if err != nil {
		return nil, fmt.Errorf("find superusers: %w", err)
	}
	if name := app.Settings().Meta.AppName; name != "" {
		subject = name + ": " + subject
	}
	mails := make([]notifications.Mail, 0, len(all))
	for _, one := range all {
		mails = append(mails, notifications.Mail{To: one.Email(), UserID: one.Id, ExpiresAt: g.cfg.now().Add(alertLife),
			Email: notifications.Email{Subject: subject, Text: text}})
	}
	return mails, nil
}
