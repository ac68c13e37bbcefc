package fcm

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// account is what is used of a service account's JSON.
type account struct {
	Type         string `json:"type"`
	ProjectID    string `json:"project_id"`
	PrivateKeyID string `json:"private_key_id"`
	PrivateKey   string `json:"private_key"`
	ClientEmail  string `json:"client_email"`
	TokenURI     string `json:"token_uri"`

	// Both are in the file that an Android app is built with, which is the one
	// that people paste by mistake.
	ProjectInfo json.RawMessage `json:"project_info"`
	Client      json.RawMessage `json:"client"`
}

// parseAccount reads a service account. The error names the first fault in one
// sentence, and nothing of the content: all of it may be secret.
func parseAccount(secret string) (*account, error) {
	if strings.TrimSpace(secret) == "" {
		return nil, errors.New("the service account is missing: paste the whole JSON file that the Firebase console makes under Project settings > Service accounts")
	}
	a := &account{}
	if err := json.Unmarshal([]byte(secret), a); err != nil {
		var wrongType *json.UnmarshalTypeError
		if errors.As(err, &wrongType) && wrongType.Field != "" {
			return nil, fmt.Errorf("the service account's %s is not a text: paste the JSON file unchanged", wrongType.Field)
		}
		return nil, errors.New("the service account is not valid JSON: paste the whole file, from the first { to the last }")
	}
	switch {
	case a.Type == "" && (len(a.ProjectInfo) > 0 || len(a.Client) > 0):
		return nil, errors.New("this is the google-services.json of an app: paste the service account's JSON instead, from Project settings > Service accounts")
	case a.Type == "":
		return nil, errors.New("the service account has no type: paste the JSON file unchanged")
	case a.Type != "service_account":
		return nil, fmt.Errorf("the JSON is of the type %q, and a service_account is needed", clip(a.Type))
	case a.ClientEmail == "":
		return nil, errors.New("the service account has no client_email: paste the JSON file unchanged")
	case !strings.Contains(a.ClientEmail, "@"):
		return nil, errors.New("the service account's client_email is not an e-mail address: paste the JSON file unchanged")
	case a.PrivateKey == "":
		return nil, errors.New("the service account has no private_key: paste the JSON file unchanged")
	}
	if err := a.readKey(); err != nil {
		return nil, err
	}
	if a.TokenURI == "" {
		return nil, errors.New("the service account has no token_uri: paste the JSON file unchanged")
	}
	if _, err := baseURL(a.TokenURI); err != nil {
		return nil, fmt.Errorf("the service account's token_uri %w", err)
	}
	return a, nil
}

// readKey proves that the private key can sign. Where a file went through an
// environment variable its line breaks may have become the two characters \n:
// that is mended, because nobody would see what is wrong.
func (a *account) readKey() error {
	block, _ := pem.Decode([]byte(a.PrivateKey))
	if block == nil {
		a.PrivateKey = strings.ReplaceAll(a.PrivateKey, `\n`, "\n")
		block, _ = pem.Decode([]byte(a.PrivateKey))
	}
	if block == nil {
		return errors.New("the service account's private_key is not complete: it goes from BEGIN PRIVATE KEY to END PRIVATE KEY")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	}
	if err != nil {
		return errors.New("the service account's private_key cannot be read: make a new key in the Firebase console and paste its JSON file unchanged")
	}
	if _, ok := key.(*rsa.PrivateKey); !ok {
		return errors.New("the service account's private_key is not an RSA key, as Google's are: paste the JSON file unchanged")
	}
	return nil
}

// baseURL checks an address that access tokens or signatures are sent to. The
// error continues a sentence.
func baseURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("is not an address such as https://fcm.googleapis.com")
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("must have no user name, no ? and no #")
	}
	if u.Scheme == "http" && !isLoopback(u.Hostname()) {
		return nil, fmt.Errorf("must begin with https, because the access token travels to it")
	}
	return u, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// clip keeps somebody else's text short enough for a sentence.
func clip(s string) string {
	s = strings.ToValidUTF8(strings.Join(strings.Fields(s), " "), "?")
	if len(s) > 80 {
		s = strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}
