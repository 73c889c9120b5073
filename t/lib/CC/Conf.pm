package CC::Conf;

# Turns a test's pieces of configuration into the text of one nginx.conf.
# All that the harness adds stands on the first line or behind "http {", so
# line N of a `conf` text is line N of the file nginx complains about.

use v5.36;
use CC::Memory;
use CC::Modules;

# prefix, modules, workers, log_level, master_process, log, pid, and either
# conf (a whole configuration) or main, events, http, server, stream,
# post_main.
sub text ($o) {
    my $body = defined $o->{conf} ? $o->{conf} : assemble($o);
    my %has  = map { $_ => 1 } main_directives($body);

    my @head = ((map { "load_module $_;" } @{ $o->{modules} // [] }), CC::Memory::directives());
    my $add = sub ($name, $value) {
        push @head, "$name $value;" if !$has{$name} && defined $value;
    };
    $add->(worker_processes => $o->{workers} // 1);
    $add->(daemon           => 'on');
    $add->(master_process   => $o->{master_process} // 'on');
    $add->(error_log        => "$o->{log} $o->{log_level}");
    $add->(pid              => $o->{pid});
    $add->(user             => $> == 0 ? 'root' : undef);
    push @head, 'events { worker_connections 1024; }' if !$has{events};

    my $paths = http_paths($o->{prefix}, $body);
    $body =~ s/((?:^|[\s;}])http\s*\{)/$1 $paths/;
    return join(' ', @head) . ' ' . expand($body, $o);
}

sub assemble ($o) {
    my $text = ($o->{main} // '') . "\n";
    $text .= "events {\n$o->{events}\n}\n" if defined $o->{events};
    $text .= "stream {\n$o->{stream}\n}\n" if ($o->{stream} // '') =~ /\D/;
    if (defined $o->{http} || defined $o->{server}) {
        $text .= "http {\n" . ($o->{http} // '') . "\n";
        $text .= "server {\nlisten 127.0.0.1:%PORT%;\n$o->{server}\n}\n"
            if defined $o->{server};
        $text .= "}\n";
    }
    return $text . ($o->{post_main} // '') . "\n";
}

# The names that stand at the outermost level.
sub main_directives ($text) {
    $text =~ s/#[^\n]*//g;
    1 while $text =~ s/\{[^{}]*\}/;/g;
    return $text =~ /(?:^|;)\s*(\w+)/g;
}

# Debian compiles absolute paths under /var in; tests write to their prefix.
sub http_paths ($prefix, $body) {
    my @lines;
    for my $kind (qw(client_body proxy fastcgi uwsgi scgi)) {
        next if $body =~ /\b${kind}_temp_path\b/;
        next if CC::Modules::build_info() =~ /--without-http_${kind}_module/;
        push @lines, "${kind}_temp_path $prefix/tmp/$kind;";
    }
    push @lines, "access_log $prefix/logs/access.log;"
        if $body !~ /^\s*access_log\b/m;
    push @lines, 'default_type text/plain;' if $body !~ /\bdefault_type\b/;
    return join ' ', @lines;
}

# %PORT%, %PORT+2% and %PREFIX%.
sub expand ($text, $o) {
    $text =~ s/%PORT(?:\+(\d+))?%/$o->{port} + ($1 \/\/ 0)/ge;
    $text =~ s/%PREFIX%/$o->{prefix}/g;
    return $text;
}

1;
