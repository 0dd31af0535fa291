package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"portwatcher/internal/server/api"
)

// tokenSum is the SHA-256 of the token: comparing sums takes the same time whatever the length
// of the token, and the token is not kept.
type tokenSum [sha256.Size]byte

// maxToken bounds the token file, in bytes.
const maxToken = 4096

// tokenSetting names the setting in both forms, because either may be in use.
const tokenSetting = "--token-file, PORTWATCHER_TOKEN_FILE"

func (s *Server) readToken() (err error) {
	path := s.options.TokenFile
	if path == "" {
		return nil
	}
	s.token, err = newReloaded(s.log, func() (tokenSum, error) { return readToken(path) }, path)
	return err
}

func readToken(path string) (tokenSum, error) {
	content, err := readBounded(path, maxToken)
	if errors.Is(err, syscall.EISDIR) {
		return tokenSum{}, fmt.Errorf("%s: %s is a folder: allowed is a file that holds the token. The engine makes an empty folder where a file that is mounted is not on the host: see TOKEN_FILE in Compose", tokenSetting, path)
	}
	if err != nil {
		return tokenSum{}, fmt.Errorf("%s: %w", tokenSetting, err)
	}
	token := strings.TrimSpace(string(content))
	switch {
	case token == "":
		return tokenSum{}, fmt.Errorf("%s: %s is empty: it has to hold the token", tokenSetting, path)
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return tokenSum{}, fmt.Errorf("%s: %s: allowed is one token of printable ASCII characters without blanks", tokenSetting, path)
	}
	return sha256.Sum256([]byte(token)), nil
}

func readBounded(path string, most int64) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(file, most+1))
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	if int64(len(content)) > most {
		return nil, fmt.Errorf("%s: it has more than %d bytes", path, most)
	}
	return content, nil
}

// authorized returns nil for a request with the token.
func (s *Server) authorized(r *http.Request) error {
	if s.token == nil {
		return nil
	}
	want := s.token.get()
	scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	sum := sha256.Sum256([]byte(strings.TrimSpace(given)))
	if strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(sum[:], want[:]) == 1 {
		return nil
	}
	return newProblem(http.StatusUnauthorized, "a token is needed: send it as the header Authorization: Bearer TOKEN")
}

// challenge completes the answer to a request without the token.
// Source: RFC 6750, section 3.
func challenge(w http.ResponseWriter, r *http.Request, p *api.Problem) {
	if p.Status != http.StatusUnauthorized {
		return
	}
	value := `Bearer realm="portwatcher"`
	if r.Header.Get("Authorization") != "" {
		value += `, error="invalid_token"`
	}
	w.Header().Set("WWW-Authenticate", value)
}

// hostAllowed prevents DNS rebinding, by which a page of another site reads from here: its
// requests have that site's name. A token prevents it better, and makes this check needless.
func (s *Server) hostAllowed(r *http.Request) error {
	if s.token != nil {
		return nil
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	// An address cannot be rebound, and no site on the Internet has a name without a dot.
	if _, err := netip.ParseAddr(host); err == nil || !strings.Contains(host, ".") ||
		strings.HasSuffix(host, ".localhost") || s.hosts[host] {
		return nil
	}
	return newProblem(http.StatusForbidden,
		fmt.Sprintf("Host: %q: without a token, allowed are addresses, names without a dot, this host's name and those of --allowed-hosts", host))
}

func (s *Server) readCertificate() (err error) {
	cert, key := s.options.TLSCert, s.options.TLSKey
	if cert == "" && key == "" {
		return nil
	}
	if cert == "" || key == "" {
		return errors.New("--tls-cert and --tls-key: each needs the other")
	}
	load := func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("--tls-cert %s, --tls-key %s: %w", cert, key, err)
		}
		return &pair, nil
	}
	s.pair, err = newReloaded(s.log, load, cert, key)
	return err
}
