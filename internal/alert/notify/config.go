package notify

// ReceiverConfig is one entry of alerts.receivers in the file of settings. Exactly one of
// Webhook, Email, Shoutrrr and Alertmanager is set.
//
// A secret is given by a file (…_file), which is read again when it changes, or by the name of an
// environment variable (…_env).
type ReceiverConfig struct {
	Name         string              `yaml:"name"`
	Webhook      *WebhookConfig      `yaml:"webhook,omitempty"`
	Email        *EmailConfig        `yaml:"email,omitempty"`
	Shoutrrr     *ShoutrrrConfig     `yaml:"shoutrrr,omitempty"`
	Alertmanager *AlertmanagerConfig `yaml:"alertmanager,omitempty"`
}

// WebhookConfig is an HTTP receiver. Exactly one of URL, URLFile and URLEnv is set.
type WebhookConfig struct {
	URL     Secret `yaml:"url,omitempty"`
	URLFile string `yaml:"url_file,omitempty"`
	URLEnv  string `yaml:"url_env,omitempty"`
	// SecretFile and SecretEnv have the key of the signature; both empty means no signature.
	SecretFile string `yaml:"secret_file,omitempty"`
	SecretEnv  string `yaml:"secret_env,omitempty"`
	// TokenFile and TokenEnv have a token for the header Authorization (Bearer).
	TokenFile string `yaml:"token_file,omitempty"`
	TokenEnv  string `yaml:"token_env,omitempty"`
	// Format is one of [Formats]; empty is the first.
	Format string `yaml:"format,omitempty"`
	// Template is the text of the template, for the format template, and ContentType the
	// media type of what it makes; empty is application/json.
	Template    string `yaml:"template,omitempty"`
	ContentType string `yaml:"content_type,omitempty"`
	// CAFile has certificates in PEM to trust instead of the system's.
	CAFile string `yaml:"ca_file,omitempty"`
}

// EmailConfig is mail through one SMTP server. Either SMTP or one of SMTPURLFile and SMTPURLEnv
// is set.
type EmailConfig struct {
	To   []string `yaml:"to"`
	From string   `yaml:"from,omitempty"`
	// SMTP is the server, "host:port". Port 465 is TLS from the first byte; another port is
	// STARTTLS.
	SMTP         string `yaml:"smtp,omitempty"`
	Username     string `yaml:"username,omitempty"`
	PasswordFile string `yaml:"password_file,omitempty"`
	PasswordEnv  string `yaml:"password_env,omitempty"`
	// SMTPURLFile and SMTPURLEnv have server, user and password in one:
	// smtp://user:password@host:587 or smtps://….
	SMTPURLFile string `yaml:"smtp_url_file,omitempty"`
	SMTPURLEnv  string `yaml:"smtp_url_env,omitempty"`
	// TLS is one of [MailTLS]; empty follows from the port or the URL.
	TLS    string `yaml:"tls,omitempty"`
	CAFile string `yaml:"ca_file,omitempty"`
}

// ShoutrrrConfig is a chat service by a URL of shoutrrr. Exactly one field is set.
type ShoutrrrConfig struct {
	URLFile string `yaml:"url_file,omitempty"`
	URLEnv  string `yaml:"url_env,omitempty"`
}

// AlertmanagerConfig is one or several Alertmanagers of one cluster. Exactly one of URL and URLs
// is set; both are addresses of the Alertmanager without /api/v2.
type AlertmanagerConfig struct {
	URL  string   `yaml:"url,omitempty"`
	URLs []string `yaml:"urls,omitempty"`
	// Labels are added to those of each alert.
	Labels map[string]string `yaml:"labels,omitempty"`
	// Username with PasswordFile or PasswordEnv is basic authentication, TokenFile or TokenEnv
	// a bearer token.
	Username     string `yaml:"username,omitempty"`
	PasswordFile string `yaml:"password_file,omitempty"`
	PasswordEnv  string `yaml:"password_env,omitempty"`
	TokenFile    string `yaml:"token_file,omitempty"`
	TokenEnv     string `yaml:"token_env,omitempty"`
	CAFile       string `yaml:"ca_file,omitempty"`
}
