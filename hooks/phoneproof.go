package hooks

import (
	"context"
	"errors"
	"fmt"
	"html"
	"net/http"
	"sync"
	"time"

	"github.com/pocketbase/pocketbase/apis"
	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/internal/accounts"
	"github.com/groundworkhq/groundwork/internal/requestlog"
	"github.com/groundworkhq/groundwork/notifications"
)

// firstProof marks a number as verified by a sign-in. Until now anybody may have
// had a password or a session of this account: the holder of the number has it
// alone from here on, as the holder of an address has by PocketBase's e-mail
// codes. Where a second factor is asked for the password stays, as it does there:
// it is that factor.
func (p *phoneSignIn) firstProof(txApp core.App, record *core.Record, requestID string) error {
	record.Set(accounts.FieldPhoneVerified, true)
	reset := ""
	if record.Collection().MFA.Enabled {
		record.RefreshTokenKey()
	} else {
		record.SetRandomPassword()
		reset = " Your password was reset."
	}
	if err := savePhone(txApp, record); err != nil {
		return err
	}
	p.logCommitted(txApp, "phone verified by signing in", "collection", record.Collection().Name, "record", record.Id,
		"phone", notifications.MaskAddress(notifications.ChannelSMS, record.GetString(accounts.FieldPhone)))
	return p.tellOwner(txApp, record, requestID, "Your phone number was confirmed",
		"Somebody signed in to your account with a code that was sent to the phone number %s. All other sign-ins were ended."+reset+" If this was not you, ask for a new password now and tell us.",
		record.GetString(accounts.FieldPhone))
}

// signUp makes the account of a number that nobody had.
func (p *phoneSignIn) signUp(txApp core.App, collection *core.Collection, phone, requestID string) (*core.Record, error) {
	record := core.NewRecord(collection)
	requestlog.SetRecordRequestID(record, requestID)
	record.Set(accounts.FieldPhone, phone)
	record.Set(accounts.FieldPhoneVerified, true)
	record.SetRandomPassword()
	if err := txApp.SaveWithContext(notifications.AsServer(context.Background()), record); err != nil {
		p.log.Warn("an account cannot be made by phone", "collection", collection.Name, "error", err, "requestId", requestID)
		return nil, fmt.Errorf("make an account by phone: %w", err)
	}
	p.logCommitted(txApp, "account made by phone", "collection", collection.Name, "record", record.Id, "phone", notifications.MaskAddress(notifications.ChannelSMS, phone))
	return record, nil
}

// savePhone writes what the server has changed. What else a record holds may have
// been right under older rules and is not this save's business.
func savePhone(txApp core.App, record *core.Record) error {
	record.IgnoreUnchangedFields(true)
	if err := txApp.SaveNoValidateWithContext(notifications.AsServer(context.Background()), record); err != nil {
		return fmt.Errorf("save the verified phone of %s %s: %w", record.Collection().Name, record.Id, err)
	}
	return nil
}

// confirmVerification takes {"otpId", "code"} and answers with the record, whose
// phone is then the one that the code was sent to.
func (p *phoneSignIn) confirmVerification(e *core.RequestEvent) error {
	collection, _, err := p.phoneCollection(e)
	if err != nil {
		return err
	}
	body := codeForm{} // what the limits read, in every content type
	if err := e.BindBody(&body); err != nil {
		return e.BadRequestError(`The request body cannot be read: send {"otpId": "…", "code": "…"}.`, err)
	}
	for field, value := range map[string]string{"otpId": body.OTPId, "code": body.Code} {
		if value == "" || len(value) > 255 {
			return fieldRefused(e, field, "validation_required", "send the otpId that you were given and the code from the SMS")
		}
	}
	var record *core.Record
	code, err := p.match(e.App, accounts.PurposeVerifyPhone, collection, body.OTPId, body.Code)
	if err == nil && code.Record != e.Auth.Id {
		err = errWrongCode
	}
	if err == nil {
		err = e.App.RunInTransaction(func(txApp core.App) error {
			record, err = p.proveTo(txApp, collection, code, requestlog.ID(e))
			return err
		})
	}
	switch {
	case errors.Is(err, errWrongCode), errors.Is(err, accounts.ErrNoCode):
		return wrongCode(e)
	case err != nil:
		return cannotEnter(e, err)
	}
	if err := apis.EnrichRecord(e, record); err != nil {
		return e.InternalServerError("The record cannot be shown.", err)
	}
	return e.JSON(http.StatusOK, record)
}

// proveTo uses up a right code and gives its number to the account.
func (p *phoneSignIn) proveTo(txApp core.App, collection *core.Collection, code *accounts.Stored, requestID string) (*core.Record, error) {
	if err := code.Use(txApp); err != nil {
		return nil, err
	}
	record, err := accounts.FindRecord(txApp, collection, code.Record)
	if err != nil {
		return nil, err
	}
	if record == nil {
		return nil, errWrongCode
	}
	taken, err := accounts.PhoneIsTaken(txApp, record, code.Phone)
	if err != nil {
		return nil, err
	}
	if taken {
		return nil, errWrongCode // since the request
	}
	before, was := record.GetString(accounts.FieldPhone), record.GetBool(accounts.FieldPhoneVerified)
	if before == code.Phone && was {
		return record, nil
	}
	record.Set(accounts.FieldPhone, code.Phone)
	record.Set(accounts.FieldPhoneVerified, true)
	if err := savePhone(txApp, record); err != nil {
		return nil, err
	}
	mask := func(phone string) string { return notifications.MaskAddress(notifications.ChannelSMS, phone) }
	p.logCommitted(txApp, "phone verified", "collection", collection.Name, "record", record.Id, "phone", mask(code.Phone), "before", mask(before), "beforeVerified", was)
	if before == "" || before == code.Phone {
		return record, nil
	}
	return record, p.tellOwner(txApp, record, requestID, "Your phone number was changed",
		"The phone number of your account is now %s. If this was not you, ask for a new password now and tell us.", code.Phone)
}

// tellOwner sends a notice to the account's e-mail address, if it has one. The
// number in it is masked: the mailbox may be somebody else's.
func (p *phoneSignIn) tellOwner(txApp core.App, record *core.Record, requestID, subject, text, phone string) error {
	if record.Email() == "" {
		return nil
	}
	text = fmt.Sprintf(text, notifications.MaskAddress(notifications.ChannelSMS, phone))
	_, err := p.sender.EnqueueMail(txApp, notifications.Mail{To: record.Email(), UserID: record.Id, RequestID: requestID,
		Email: notifications.Email{Subject: subject, Text: text, HTML: "<p>" + html.EscapeString(text) + "</p>"}})
	return err
}

// logCommitted writes a line once the transaction has committed.
func (p *phoneSignIn) logCommitted(txApp core.App, msg string, args ...any) {
	txApp.TxInfo().OnComplete(func(err error) error {
		if err == nil {
			p.log.Info(msg, args...)
		}
		return nil
	})
}

// warnSeldom says each thing once a minute at most. The zero value is ready.
type warnSeldom struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func (w *warnSeldom) say(it func(), what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.last[what]) < time.Minute {
		return
	}
	if w.last == nil {
		w.last = map[string]time.Time{}
	}
	w.last[what] = time.Now()
	it()
}
