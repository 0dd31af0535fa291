package notify

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The headers of Standard Webhooks
// (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md).
const (
	headerID        = "Webhook-Id"
	headerTimestamp = "Webhook-Timestamp"
	headerSignature = "Webhook-Signature"
)

// keyPrefix begins a key in base64.
const keyPrefix = "whsec_"

// minKey is the least length of a key, in bytes: one that is shorter can be guessed from a single
// signature. The specification recommends 24.
const minKey = 16

// signingKeys reads keys, one a line: whsec_ and base64, or the bytes themselves. Several keys
// make several signatures, so that a key can be replaced without a moment in which the receiver
// has another. The error contains no key.
func signingKeys(text string) ([][]byte, error) {
	var keys [][]byte
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			continue
		}
		key := []byte(line)
		if encoded, found := strings.CutPrefix(line, keyPrefix); found {
			var err error
			if key, err = base64.StdEncoding.DecodeString(encoded); err != nil {
				return nil, errors.New("the key after whsec_ is not valid base64; allowed is whsec_ and base64, or a text without whsec_")
			}
		}
		if len(key) < minKey {
			return nil, fmt.Errorf("a key has %d bytes; allowed are %d or more, best are 24 to 64", len(key), minKey)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("it has no key")
	}
	return keys, nil
}

// sign sets the headers of a try at a time: identity, time and, where there are keys, signatures.
func sign(header http.Header, keys [][]byte, id string, at time.Time, body []byte) {
	timestamp := strconv.FormatInt(at.Unix(), 10)
	header.Set(headerID, id)
	header.Set(headerTimestamp, timestamp)
	signatures := make([]string, len(keys))
	for i, key := range keys {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + timestamp + "."))
		mac.Write(body)
		signatures[i] = "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	if len(signatures) > 0 {
		header.Set(headerSignature, strings.Join(signatures, " "))
	}
}

// webhookID is the id of a notification as a header can carry it. Everything but letters,
// digits, -, _ and / is escaped as in URLs: the specification forbids full stops, which separate
// the parts of what is signed.
func webhookID(id string) string {
	var b strings.Builder
	for i := range len(id) {
		c := id[i]
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_' || c == '/' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
