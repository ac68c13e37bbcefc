package notifications

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"strings"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// Promotional e-mail carries a link by which its reader stops it, in two headers
// that mail programs make a button of (RFC 8058) and in the text. The link's token
// is sealed, so that it needs no row and outlives the notification, its delivery
// and a restart; it never expires.

// UnsubscribePath is where the links lead; the token follows.
const UnsubscribePath = "/api/unsubscribe/"

// unsubscribeVar is the link's name in templates.
const unsubscribeVar = "unsubscribeUrl"

// purposeUnsubscribe binds a sealed value to being a token of such a link.
const purposeUnsubscribe = "unsubscribe"

// undoFor is how long somebody who unsubscribed may take it back by the link. It is
// short: a mail gets forwarded, and whoever reads it then has the link.
const undoFor = time.Hour

// ErrBadToken means that a token was not made here, was cut off on its way, or was
// made with another GROUNDWORK_KEY.
var ErrBadToken = errors.New("this is no token of an unsubscribe link")

// Unsubscription is what the token of an unsubscribe link says.
type Unsubscription struct {
	Address  string `json:"a"`
	User     string `json:"u"` // id
	Kind     Kind   `json:"k"`
	Category string `json:"c"` // id
}

// UnsubscribeToken returns the token for an unsubscription: letters, digits, - and _.
func (s *Sender) UnsubscribeToken(u Unsubscription) (string, error) {
	plain, err := json.Marshal(u)
	if err != nil {
		return "", fmt.Errorf("encode unsubscribe token: %w", err)
	}
	sealed, err := s.sealed.Seal(purposeUnsubscribe, plain)
	if err != nil {
		return "", fmt.Errorf("seal unsubscribe token: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(sealed), nil
}

// OpenUnsubscribeToken reads a token. The error is [ErrBadToken].
func (s *Sender) OpenUnsubscribeToken(token string) (Unsubscription, error) {
	var u Unsubscription
	sealed, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return u, ErrBadToken
	}
	plain, err := s.sealed.Open(purposeUnsubscribe, sealed)
	if err != nil || json.Unmarshal(plain, &u) != nil || u.Address == "" || u.Kind != KindPromotional {
		return Unsubscription{}, ErrBadToken
	}
	return u, nil
}

// needsUnsubscribeLink says whether messages carry an unsubscribe link.
func needsUnsubscribeLink(channel Channel, kind Kind) bool {
	return channel == ChannelEmail && kind == KindPromotional
}

// publicURL is where people reach this server; empty when nobody said it.
func (s *Sender) publicURL() string {
	if s.opts.PublicURL == nil {
		return ""
	}
	return strings.TrimRight(s.opts.PublicURL(), "/")
}

// noPublicAddress is what becomes of promotional e-mail whose link would lead
// nowhere.
const noPublicAddress = "Promotional e-mail needs an unsubscribe link, and this server does not know its own public address: set Settings > Application > Application URL to the https address that people use, then retry what failed."

// unsubscribeLink is the link for one message.
func (s *Sender) unsubscribeLink(base string, u Unsubscription) (string, error) {
	token, err := s.UnsubscribeToken(u)
	if err != nil {
		return "", err
	}
	return base + UnsubscribePath + token, nil
}

// addUnsubscribe puts the link into a promotional e-mail: into its headers always,
// into its texts where its author did not.
func (s *Sender) addUnsubscribe(e *Email, link string) {
	e.Unsubscribe, e.UnsubscribeMailto = link, s.opts.UnsubscribeMailto
	if s.opts.NoUnsubscribeFooter {
		return
	}
	if !strings.Contains(e.Text, link) {
		e.Text = strings.TrimRight(e.Text, "\n") + "\n\n" + unsubscribeWords + ":\n" + link + "\n"
	}
	if e.HTML != "" && !strings.Contains(e.HTML, link) {
		e.HTML = withFooter(e.HTML, `<p style="margin:24px 0 0;font:12px/1.5 -apple-system,'Segoe UI',Roboto,sans-serif;color:#595959;text-align:center"><a href="`+
			html.EscapeString(link)+`" style="color:#595959">`+unsubscribeWords+`</a></p>`)
	}
}

const unsubscribeWords = "Unsubscribe from these e-mails"

// withFooter puts a footer at the end of a page's body.
func withFooter(page, footer string) string {
	// ToLower may change the length of a text, so that only ASCII is compared.
	for i := len(page) - len("</body"); i >= 0; i-- {
		if page[i] == '<' && strings.EqualFold(page[i:i+len("</body")], "</body") {
			return page[:i] + footer + page[i:]
		}
	}
	return page + footer
}

// UnsubscribeState is how things are for the reader of an unsubscribe link.
type UnsubscribeState struct {
	// Category is the name of the message's category; empty when it, or the person, is
	// gone: then there is nothing to choose.
	Category string

	// All is true when the address gets no promotional e-mail any more, OnlyCategory
	// when the person gets none of the category.
	All, OnlyCategory bool

	// MayUndo says that [Sender.UndoUnsubscribe] would change something.
	MayUndo bool
}

// UnsubscribeState reads and changes nothing.
func (s *Sender) UnsubscribeState(u Unsubscription) (UnsubscribeState, error) {
	var state UnsubscribeState
	suppressed, err := s.app.FindAllRecords(CollectionSuppressions, suppressedMail(s.app, u))
	if err != nil {
		return state, fmt.Errorf("find suppression: %w", err)
	}
	since := s.now().Add(-undoFor)
	for _, r := range suppressed {
		if kind := Kind(r.GetString("kind")); kind != "" && kind != u.Kind {
			continue
		}
		state.All = true
		state.MayUndo = state.MayUndo || mayUndo(r, since)
	}
	wish, err := findWish(s.app, u)
	if err != nil {
		return state, err
	}
	if wish != nil && !wish.GetBool("enabled") {
		state.OnlyCategory = true
		byLink, err := switchedByLink(s.app, wish, since)
		if err != nil {
			return state, err
		}
		state.MayUndo = state.MayUndo || byLink
	}
	if there, err := s.knowsPerson(s.app, u.User); err != nil || !there {
		return state, err
	}
	category, err := s.app.FindRecordById(CollectionCategories, u.Category)
	if errors.Is(err, sql.ErrNoRows) {
		return state, nil
	}
	if err != nil {
		return state, fmt.Errorf("find category %s: %w", u.Category, err)
	}
	state.Category = category.GetString("name")
	return state, nil
}

func mayUndo(suppression *core.Record, since time.Time) bool {
	return suppression.GetString("reason") == SuppressUnsubscribe && suppression.GetDateTime("created").Time().After(since)
}

// Unsubscribe does what the reader of a link asks for: no promotional e-mail to the
// address any more, or no e-mail of the category to the person. It may be called
// again.
func (s *Sender) Unsubscribe(u Unsubscription, onlyCategory bool) error {
	return s.app.RunInTransaction(func(txApp core.App) error {
		there, err := s.knowsPerson(txApp, u.User)
		if err != nil {
			return err
		}
		if onlyCategory && there {
			done, err := switchCategoryOff(txApp, u)
			if done || err != nil {
				return err
			}
		}
		// A category or a person that is gone leaves the address: no mail at all is what
		// comes nearest to what was asked for.
		address, err := NormalizeAddress(ChannelEmail, u.Address)
		if err != nil {
			return nil // mail went there, but none will that looks for it in the list
		}
		stored := address
		if there {
			if err := withdrawConsents(txApp, ChannelEmail, address, sourceUnsubscribe, u.User); err != nil {
				return err
			}
		} else {
			// Whoever was erased is not written down again.
			forms := suppressedForms(txApp, ChannelEmail, address)
			stored = forms[len(forms)-1]
		}
		return suppressAs(txApp, ChannelEmail, address, stored, u.Kind, SuppressUnsubscribe)
	})
}

// switchCategoryOff stores the wish where the app's own settings show it. done is
// false when there is no such category.
func switchCategoryOff(txApp core.App, u Unsubscription) (done bool, err error) {
	if _, err := txApp.FindRecordById(CollectionCategories, u.Category); errors.Is(err, sql.ErrNoRows) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("find category %s: %w", u.Category, err)
	}
	wish, err := findWish(txApp, u)
	if err != nil {
		return false, err
	}
	if wish != nil && !wish.GetBool("enabled") {
		return true, nil
	}
	if wish == nil {
		collection, err := txApp.FindCachedCollectionByNameOrId(CollectionPreferences)
		if err != nil {
			return false, fmt.Errorf("find collection %s: %w", CollectionPreferences, err)
		}
		wish = core.NewRecord(collection)
		wish.Load(map[string]any{"user": u.User, "category": u.Category, "channel": string(ChannelEmail)})
	}
	wish.Set("enabled", false)
	if err := txApp.SaveWithContext(AsServer(context.Background()), wish); err != nil {
		return false, fmt.Errorf("save preference: %w", err)
	}
	_, err = txApp.DB().NewQuery("INSERT INTO {{groundwork_inbound}} ([[id]], [[at]]) VALUES ({:id}, {:at}) ON CONFLICT DO NOTHING").
		Bind(dbx.Params{"id": wishDigest(wish), "at": wish.GetDateTime("updated").String()}).Execute()
	if err != nil {
		return false, fmt.Errorf("remember that a link switched a category off: %w", err)
	}
	return true, nil
}

// wishDigest is what is remembered of a wish that came by a link. It is another one as
// soon as the wish is saved again, whoever does it.
func wishDigest(wish *core.Record) string {
	return messageDigest("unsubscribe link\x1f" + wish.Id + "\x1f" + wish.GetDateTime("updated").String())
}

// switchedByLink says whether a wish is as a link left it after since. What people
// decided in the app themselves is not for a link to change, which whoever gets the mail
// forwarded has too.
func switchedByLink(app core.App, wish *core.Record, since time.Time) (bool, error) {
	if !wish.GetDateTime("updated").Time().After(since) {
		return false, nil
	}
	var one int
	err := app.DB().Select("(1)").From("groundwork_inbound").Where(dbx.HashExp{"id": wishDigest(wish)}).Limit(1).Row(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("find out who switched a category off: %w", err)
	}
	return true, nil
}

// UndoUnsubscribe takes back what [Sender.Unsubscribe] did within the last hour, and
// nothing that anybody else did.
func (s *Sender) UndoUnsubscribe(u Unsubscription) error {
	since := s.now().Add(-undoFor)
	return s.app.RunInTransaction(func(txApp core.App) error {
		suppressed, err := txApp.FindAllRecords(CollectionSuppressions, suppressedMail(txApp, u), dbx.HashExp{"kind": string(u.Kind)})
		if err != nil {
			return fmt.Errorf("find suppression: %w", err)
		}
		for _, r := range suppressed {
			if !mayUndo(r, since) {
				continue
			}
			if err := txApp.DeleteWithContext(AsServer(context.Background()), r); err != nil {
				return fmt.Errorf("delete suppression: %w", err)
			}
			if err := restoreConsents(txApp, ChannelEmail, r.GetString("address"), sourceUnsubscribe, sourceUndo); err != nil {
				return err
			}
		}
		wish, err := findWish(txApp, u)
		if err != nil || wish == nil || wish.GetBool("enabled") {
			return err
		}
		if byLink, err := switchedByLink(txApp, wish, since); err != nil || !byLink {
			return err
		}
		wish.Set("enabled", true)
		if err := txApp.SaveWithContext(AsServer(context.Background()), wish); err != nil {
			return fmt.Errorf("save preference: %w", err)
		}
		return nil
	})
}

// suppressedMail is the condition on what holds e-mail to the address back, of
// whatever kind.
func suppressedMail(app core.App, u Unsubscription) dbx.Expression {
	address, err := NormalizeAddress(ChannelEmail, u.Address)
	if err != nil {
		address = strings.ToLower(u.Address)
	}
	return dbx.HashExp{"channel": string(ChannelEmail), "address": anySlice(suppressedForms(app, ChannelEmail, address))}
}

// findWish returns the person's wish about e-mail of the category; nil when there is
// none.
func findWish(app core.App, u Unsubscription) (*core.Record, error) {
	if u.User == "" || u.Category == "" {
		return nil, nil
	}
	wishes, err := app.FindAllRecords(CollectionPreferences, dbx.HashExp{"user": u.User, "category": u.Category, "channel": string(ChannelEmail)})
	if err != nil {
		return nil, fmt.Errorf("find preference: %w", err)
	}
	if len(wishes) == 0 {
		return nil, nil
	}
	return wishes[0], nil
}

func (s *Sender) knowsPerson(app core.App, id string) (bool, error) {
	users, err := UsersCollection(app)
	if err != nil || id == "" {
		return false, err
	}
	var one int
	err = app.DB().Select("(1)").From(users.Name).Where(dbx.HashExp{"id": id}).Limit(1).Row(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("find person %s: %w", id, err)
	}
	return true, nil
}
