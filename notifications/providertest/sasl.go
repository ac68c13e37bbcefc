package providertest

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/emersion/go-sasl"
)

var errCancelled = errors.New("unexpected answer")

// login is the server's side of AUTH LOGIN.
type login struct {
	check    func(username, password string) error
	step     int
	username string
}

func (l *login) Next(response []byte) ([]byte, bool, error) {
	l.step++
	switch {
	case l.step == 1 && response == nil:
		return []byte("Username:"), false, nil
	case l.step == 1: // the user name came with the command
		l.step++
		fallthrough
	case l.step == 2:
		l.username = string(response)
		return []byte("Password:"), false, nil
	case l.step == 3:
		return nil, true, l.check(l.username, string(response))
	}
	return nil, false, errCancelled
}

// cramMD5 is the server's side of AUTH CRAM-MD5.
type cramMD5 struct {
	password  string
	challenge string
	check     func(username, password string) error
}

func (c *cramMD5) Next(response []byte) ([]byte, bool, error) {
	if c.challenge == "" {
		c.challenge = fmt.Sprintf("<%s@localhost>", rand.Text())
		return []byte(c.challenge), false, nil
	}
	username, digest, ok := strings.Cut(string(response), " ")
	if !ok {
		return nil, false, errCancelled
	}
	mac := hmac.New(md5.New, []byte(c.password))
	mac.Write([]byte(c.challenge))
	if digest != hex.EncodeToString(mac.Sum(nil)) {
		return nil, true, c.check(username, "")
	}
	return nil, true, c.check(username, c.password)
}

func newSASL(method, password string, check func(username, password string) error) sasl.Server {
	switch method {
	case "PLAIN":
		return sasl.NewPlainServer(func(_, username, password string) error { return check(username, password) })
	case "LOGIN":
		return &login{check: check}
	case "CRAM-MD5":
		return &cramMD5{password: password, check: check}
	}
	return nil
}
