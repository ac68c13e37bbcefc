package providertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"sync"
	"time"
)

// Cert says which certificate a double shows.
type Cert int

const (
	// CertValid is made out to 127.0.0.1, ::1 and localhost, and signed by the
	// authority of [CAPEM].
	CertValid Cert = iota
	// CertExpired is valid but for its date.
	CertExpired
	// CertWrongName is valid but for its name.
	CertWrongName
	// CertUnknownCA is signed by an authority that nobody can trust.
	CertUnknownCA
)

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// One authority per process: Go reads the system's roots once, so that a second
// one could not be trusted any more.
var trusted = sync.OnceValues(func() (*authority, error) { return newAuthority("Groundwork test authority") })

func newAuthority(name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-48 * time.Hour),
		NotAfter:              time.Now().Add(48 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read authority: %w", err)
	}
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, nil
}

func (a *authority) issue(kind Cert) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "localhost"},
		NotBefore:    time.Now().Add(-24 * time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	switch kind {
	case CertExpired:
		template.NotAfter = time.Now().Add(-time.Hour)
	case CertWrongName:
		template.DNSNames, template.IPAddresses = []string{"mail.example.org"}, nil
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

func newCertificate(kind Cert) (tls.Certificate, error) {
	ca, err := trusted()
	if kind == CertUnknownCA {
		ca, err = newAuthority("Nobody's authority")
	}
	if err != nil {
		return tls.Certificate{}, err
	}
	return ca.issue(kind)
}

// CAPEM is the certificate of the authority that signs the doubles'
// certificates in this process.
func CAPEM() ([]byte, error) {
	ca, err := trusted()
	if err != nil {
		return nil, err
	}
	return ca.pem, nil
}

// TrustCA makes this process trust the doubles' certificates, the way an
// operator would: by SSL_CERT_FILE. Go reads the system's roots once, so it is
// called at the top of TestMain; later it is too late, and an error.
//
// Another process is told by [SMTP.Env] or by its own SSL_CERT_FILE.
func TrustCA() error {
	ca, err := trusted()
	if err != nil {
		return err
	}
	file, err := os.CreateTemp("", "groundwork-test-ca-*.pem")
	if err != nil {
		return fmt.Errorf("write authority: %w", err)
	}
	defer os.Remove(file.Name())
	if _, err := file.Write(ca.pem); err != nil {
		return fmt.Errorf("write authority: %w", err)
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("write authority: %w", err)
	}
	before, was := os.LookupEnv("SSL_CERT_FILE")
	if err := os.Setenv("SSL_CERT_FILE", file.Name()); err != nil {
		return fmt.Errorf("set SSL_CERT_FILE: %w", err)
	}
	defer func() {
		if was {
			_ = os.Setenv("SSL_CERT_FILE", before)
		} else {
			_ = os.Unsetenv("SSL_CERT_FILE")
		}
	}()
	if _, err := ca.cert.Verify(x509.VerifyOptions{}); err != nil {
		return fmt.Errorf("trust the doubles' certificates: %w: call TrustCA at the top of TestMain, before anything else uses TLS", err)
	}
	return nil
}
