package accounts

import (
	"encoding/hex"
	"fmt"
	"time"

	"github.com/pocketbase/dbx"
	"github.com/pocketbase/pocketbase/core"
)

// capWindow is the length of the window in which texts are counted. It slides: no
// hour, wherever it begins, has more.
const capWindow = time.Hour

// prefixTail is how many last digits do not count when numbers are compared:
// those who earn by texts own rows of numbers, rarely fewer than 10,000.
const prefixTail = 4

// Asker is on whose behalf a text is asked for. Of every cap a tenth is kept from
// those before an owner at home, and a second one from strangers: whoever asks for
// codes for hundreds of invented numbers would otherwise keep all those out who
// have an account.
type Asker int

const (
	// Stranger has a number that leads into no account yet: of a sign-up, or of
	// somebody who wants to verify it.
	Stranger Asker = iota

	// Owner has a number that leads into an account.
	Owner

	// OwnerAtHome also asks from where that account was signed in to before.
	OwnerAtHome
)

// most is how much of a cap there is for an asker.
func (a Asker) most(limit int) int { return limit - limit/10*int(OwnerAtHome-a) }

// Text is what [Codes.CountText] says about one.
type Text struct {
	// Capped is one too many: it is not sent and was not counted.
	Capped bool

	// Listed is one that gets a row among the deliveries: everyone that is sent or was
	// asked for by an owner, and of the others as many as there might be sent. Nobody
	// has to have an account to ask for codes, and the disk is not theirs to fill.
	Listed bool
}

// CountText counts a text in the transaction that asks for it. wanted is false for
// one that is not going to be sent anyway: it takes nothing from the caps.
//
// The rows are in the database, so that a restart forgets nothing and several
// processes count together. Call it after the first write of the transaction: the
// count would otherwise be read before another process's was committed.
func (c Codes) CountText(txApp core.App, collection, phone string, s PhoneSettings, asker Asker, wanted bool) (Text, error) {
	prefix, err := c.Key.MAC("phone prefix", collection, phone[:max(len(phone)-prefixTail, 0)])
	if err != nil {
		return Text{}, fmt.Errorf("hash phone prefix: %w", err)
	}
	key, now := hex.EncodeToString(prefix), time.Now().UnixMilli()
	since := now - capWindow.Milliseconds()
	if _, err := txApp.DB().Delete("groundwork_phone_texts", dbx.NewExp("[[at]] <= {:since}", dbx.Params{"since": since})).Execute(); err != nil {
		return Text{}, fmt.Errorf("delete old texts: %w", err)
	}
	var n struct {
		All    int `db:"everybody"`
		Prefix int `db:"prefix"`
		Unsent int `db:"unsent"`
	}
	err = txApp.DB().NewQuery("SELECT (SELECT count(*) FROM {{groundwork_phone_texts}} WHERE [[collection]] = {:collection} AND [[counted]] = 1 AND [[at]] > {:since}) AS [[everybody]]," +
		" (SELECT count(*) FROM {{groundwork_phone_texts}} WHERE [[collection]] = {:collection} AND [[prefixKey]] = {:prefix} AND [[counted]] = 1 AND [[at]] > {:since}) AS [[prefix]]," +
		" (SELECT count(*) FROM {{groundwork_phone_texts}} WHERE [[collection]] = {:collection} AND [[counted]] = 0 AND [[at]] > {:since}) AS [[unsent]]").
		Bind(dbx.Params{"collection": collection, "prefix": key, "since": since}).One(&n)
	if err != nil {
		return Text{}, fmt.Errorf("count texts: %w", err)
	}
	var t Text
	t.Capped = wanted && (n.All >= asker.most(s.MaxPerHour) || n.Prefix >= asker.most(s.MaxPerPrefixPerHour))
	counted := wanted && !t.Capped
	if t.Listed = counted || asker != Stranger || n.Unsent < s.MaxPerHour; !t.Listed {
		return t, nil
	}
	_, err = txApp.DB().Insert("groundwork_phone_texts", dbx.Params{"collection": collection, "prefixKey": key, "counted": counted, "at": now}).Execute()
	if err != nil {
		return Text{}, fmt.Errorf("count text: %w", err)
	}
	return t, nil
}
