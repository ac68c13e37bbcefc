package accounts

import (
	"fmt"
	"slices"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"

	"github.com/groundworkhq/groundwork/notifications"
)

// RecordRef is a record that is gone.
type RecordRef struct {
	Collection     string `json:"collection"` // id
	CollectionName string `json:"collectionName"`
	ID             string `json:"id"`
}

// Trace is what an erasure has to know of an account, taken down before the
// account is deleted.
type Trace struct {
	Account RecordRef `json:"account"`

	// Person says that the account is one of the people who are notified.
	Person bool `json:"person"`

	Email string `json:"email"`
	Phone string `json:"phone"`

	// Values are the other texts of the account, by field: only those that nobody
	// else has tell whom a log line is about.
	Values map[string][]string `json:"values"`

	// IPs and UserAgents are those of the sign-ins and of the consents.
	IPs        []string `json:"ips"`
	UserAgents []string `json:"userAgents"`

	// Tokens are those of the devices.
	Tokens []string `json:"tokens"`

	// Notifications are the ids of those that went to this person and nobody else.
	Notifications []string `json:"notifications"`

	// Records are the application's records that were deleted with the account.
	Records []RecordRef `json:"records"`
}

func (t *Trace) has(collection, record string) bool {
	if t.Account.Collection == collection && t.Account.ID == record {
		return true
	}
	return slices.ContainsFunc(t.Records, func(r RecordRef) bool { return r.Collection == collection && r.ID == record })
}

// Ref returns the reference of a record.
func Ref(r *core.Record) RecordRef {
	return RecordRef{Collection: r.Collection().Id, CollectionName: r.Collection().Name, ID: r.Id}
}

// TakeTrace takes down what is known of an account, in the transaction that
// deletes it and before it does. person says whether it is one of the people who
// are notified; those are taken out of the lists of recipients too.
func TakeTrace(txApp core.App, account *core.Record, person bool) (*Trace, error) {
	t := &Trace{Account: Ref(account), Person: person, Email: account.Email(), Phone: account.GetString(FieldPhone), Values: map[string][]string{}}
	for _, f := range account.Collection().Fields {
		switch f.Type() {
		case core.FieldTypeText, core.FieldTypeURL, core.FieldTypeEmail, core.FieldTypeEditor, core.FieldTypeFile:
		default:
			continue
		}
		switch f.GetName() {
		case core.FieldNameId, core.FieldNameEmail, core.FieldNameTokenKey, FieldPhone, "locale", "timezone":
			continue
		}
		for _, value := range account.GetStringSlice(f.GetName()) {
			if len(value) >= leastValue {
				t.Values[f.GetName()] = append(t.Values[f.GetName()], value)
			}
		}
	}
	if sessions, err := txApp.FindCachedCollectionByNameOrId(CollectionSessions); err == nil {
		var rows []struct {
			IP        string `db:"ip"`
			UserAgent string `db:"userAgent"`
		}
		err := txApp.DB().Select("ip", "userAgent").Distinct(true).From(sessions.Name).
			Where(dbx.HashExp{"recordRef": account.Id, "collectionRef": account.Collection().Id}).All(&rows)
		if err != nil {
			return nil, fmt.Errorf("read sessions of account %s: %w", account.Id, err)
		}
		for _, row := range rows {
			t.IPs = appendNew(t.IPs, row.IP)
			t.UserAgents = appendNew(t.UserAgents, row.UserAgent)
		}
	}
	if !person {
		return t, nil
	}
	consents, err := txApp.FindCachedCollectionByNameOrId(notifications.CollectionConsents)
	if err != nil {
		return nil, fmt.Errorf("find consents: %w", err)
	}
	var given []struct {
		IP        string `db:"ip"`
		UserAgent string `db:"userAgent"`
	}
	err = txApp.DB().Select("ip", "userAgent").Distinct(true).From(consents.Name).
		Where(dbx.HashExp{"user": account.Id, "recordedBy": notifications.RecordedByPerson}).All(&given)
	if err != nil {
		return nil, fmt.Errorf("read consents of account %s: %w", account.Id, err)
	}
	for _, row := range given {
		t.IPs = appendNew(t.IPs, row.IP)
		t.UserAgents = appendNew(t.UserAgents, row.UserAgent)
	}
	devices, err := txApp.FindCachedCollectionByNameOrId(notifications.CollectionDevices)
	if err != nil {
		return nil, fmt.Errorf("find devices: %w", err)
	}
	if err := txApp.DB().Select("token").From(devices.Name).Where(dbx.HashExp{"user": account.Id}).Column(&t.Tokens); err != nil {
		return nil, fmt.Errorf("read devices of account %s: %w", account.Id, err)
	}
	t.Notifications, err = notifications.UnlistPerson(txApp, account.Id)
	return t, err
}

func appendNew(list []string, value string) []string {
	if value == "" || slices.Contains(list, value) {
		return list
	}
	return append(list, value)
}
