"""A command's manners: flags, help, errors in one line; and what the commands do. Nothing else imports it."""
