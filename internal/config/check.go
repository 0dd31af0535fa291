package config

import (
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"portwatcher/internal/model"
)

// checks are the checks of the settings whose value is a text, by name. Each returns
// the value to use. The error states what is allowed.
var checks = map[string]func(string) (string, error){
	ConfigFile: checkFile, Expect: checkFile, TokenFile: checkFile, TLSCert: checkFile, TLSKey: checkFile,
	ProcRoot: checkFolder, CgroupRoot: checkFolder,
	DockerHost: checkEngine, HostName: checkHostName, HealthSocket: checkSocket, State: checkState, Listen: checkListen,
	PublicURL: checkWeb, AlertWebhook: checkWeb, AlertEmail: checkEmail, SMTPURL: checkSMTP,
}

// checkFile accepts a path, or empty for none.
func checkFile(text string) (string, error) {
	if strings.ContainsRune(text, 0) {
		return "", errors.New("allowed is the path of a file, and empty for none")
	}
	if text == "" {
		return "", nil
	}
	return filepath.Clean(text), nil
}

func checkFolder(text string) (string, error) {
	if !path.IsAbs(text) || strings.ContainsRune(text, 0) {
		return "", errors.New("allowed is an absolute path")
	}
	return path.Clean(text), nil
}

// checkState accepts an absolute path, so that a misspelt word does not become a file
// in the working folder.
func checkState(text string) (string, error) {
	if text == StateMemory {
		return text, nil
	}
	if !path.IsAbs(text) || strings.ContainsRune(text, 0) {
		return "", fmt.Errorf("allowed are an absolute path and the word %s", StateMemory)
	}
	state := path.Clean(text)
	if info, err := os.Stat(state); strings.HasSuffix(text, "/") || err == nil && info.IsDir() {
		state = path.Join(state, "portwatcher.db")
	}
	return state, nil
}

var errEngine = errors.New("allowed are unix:///PATH, tcp://HOST:PORT, http://HOST:PORT and https://HOST:PORT")

// checkEngine checks the form of the address only; the engine package checks the rest.
func checkEngine(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	scheme, address, _ := strings.Cut(text, "://")
	if address == "" || !slices.Contains([]string{"unix", "tcp", "http", "https"}, scheme) {
		return "", errEngine
	}
	parsed, err := url.Parse("tcp://" + address)
	if scheme != "unix" && (err != nil || parsed.Hostname() == "" || parsed.Port() == "") {
		return "", fmt.Errorf("%w (the usual ports are 2375, and 2376 with TLS)", errEngine)
	}
	return text, nil
}

// checkHostName refuses blanks: the name is part of each line of output.
func checkHostName(text string) (string, error) {
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }) || len(text) > 253 {
		return "", errors.New("allowed are up to 253 bytes without blanks and control characters")
	}
	return text, nil
}

// maxSocketName is the size of sun_path in struct sockaddr_un, less one byte: the
// zero that ends a path or begins an abstract name.
// Source: unix(7).
const maxSocketName = 107

func checkSocket(text string) (string, error) {
	name, abstract := strings.CutPrefix(text, "@")
	valid := text == "" || abstract && name != "" || path.IsAbs(text)
	if !valid || len(name) > maxSocketName || strings.ContainsRune(text, 0) {
		return "", fmt.Errorf("allowed are an absolute path and @name, each up to %d bytes, and empty for none", maxSocketName)
	}
	return text, nil
}

// checkListen accepts HOST:PORT, the host being a name, an address or empty for all.
func checkListen(text string) (string, error) {
	host, port, err := net.SplitHostPort(text)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if text != "" && (err != nil || strings.ContainsAny(host, " /")) {
		return "", errors.New("allowed is HOST:PORT, such as 127.0.0.1:9888, and empty for none")
	}
	return text, nil
}

func parseHosts(text string) ([]string, error) {
	var hosts []string
	for _, name := range model.Words(text) {
		if strings.ContainsAny(name, ":/*@") || len(name) > 253 {
			return nil, &model.EntryError{Entry: name, Err: errors.New("allowed are host names without a port, separated by commas or blanks")}
		}
		hosts = append(hosts, strings.ToLower(name))
	}
	return hosts, nil
}

// checkWeb accepts an address of the web. Its parts may be secrets: the error repeats none.
func checkWeb(text string) (string, error) {
	u, err := url.Parse(text)
	if text != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		return "", errors.New("allowed are http://HOST and https://HOST, with a port and a path, and empty for none")
	}
	return text, nil
}

// checkEmail accepts addresses, separated by commas or blanks.
func checkEmail(text string) (string, error) {
	addresses := model.Words(text)
	for _, address := range addresses {
		if parsed, err := mail.ParseAddress(address); err != nil || parsed.Address != address {
			return "", errors.New("allowed are addresses such as ops@example.org, separated by commas or blanks, and empty for none")
		}
	}
	return strings.Join(addresses, ","), nil
}

// checkSMTP accepts the address of a mail server. The error repeats nothing of it.
func checkSMTP(text string) (string, error) {
	u, err := url.Parse(text)
	if text != "" && (err != nil || u.Scheme != "smtp" && u.Scheme != "smtps" || u.Hostname() == "") {
		return "", errors.New("allowed are smtp://USER:PASSWORD@HOST:PORT and smtps://USER:PASSWORD@HOST:PORT, and empty for none")
	}
	return text, nil
}
